package agent

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What the libraries report reaches the log when it is an error that somebody may act on.
func TestLibrariesAreQuiet(t *testing.T) {
	var said bytes.Buffer
	log := logr.FromSlogHandler(quiet{slog.NewTextHandler(&said, nil)}).WithValues("part", "library")
	services := schema.GroupResource{Group: "apiregistration.k8s.io", Resource: "apiservices"}
	modified := apierrors.NewConflict(services, "v1.garden.example.com", errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	log.Info("watch ends")
	log.Error(fmt.Errorf("v1.garden.example.com failed with: %w", modified), "Unhandled Error")
	log.Error(nil, "Unhandled Error", "err", modified.Error())
	if said.Len() > 0 {
		t.Errorf("said of normal life: %s", said.String())
	}
	log.Error(apierrors.NewConflict(services, "v1.garden.example.com", errors.New("another UID is wanted")), "Unhandled Error")
	if text := said.String(); !strings.Contains(text, "level=INFO") || !strings.Contains(text, "another UID is wanted") || !strings.Contains(text, "part=library") {
		t.Errorf("said of an error: %q", text)
	}
}

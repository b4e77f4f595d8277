package mesh

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// clockSpan is far beyond what certificates of five minutes' backdating, or leases of seconds, would bear.
const clockSpan = time.Hour

// clockOf is by how much the clock of a host's agent is ahead, as its answers say, to the second.
func clockOf(t *testing.T, host string) (time.Duration, error) {
	t.Helper()
	_, config := clientOf(t, host)
	trust, err := rest.TLSConfigFor(config)
	if err != nil {
		return 0, err
	}
	// A connection that was made while the agent started was carried to another host, and would be for as long as it is kept.
	transport := &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/version", nil)
	if err != nil {
		return 0, err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	told, err := http.ParseTime(answer.Header.Get("Date"))
	return time.Until(told).Round(time.Minute), err
}

// setClock sets the clock of a host's agent, and waits until it answers with that.
func setClock(t *testing.T, host string, offset time.Duration) {
	t.Helper()
	arguments := []string{"clock", host, max(offset, -offset).String()}
	if offset < 0 {
		arguments = slices.Insert(arguments, 1, "--behind")
	}
	inflict(t, arguments...)
	eventually(t, drillLimit, fmt.Sprintf("%s to be %s ahead", host, offset), func() (string, bool) {
		ahead, err := clockOf(t, host)
		return fmt.Sprint(ahead, err), err == nil && ahead == offset
	})
}

// whileClockIsOff has a host's agent start with a clock that is off, and later find the right time.
func whileClockIsOff(t *testing.T, victim string, offset time.Duration) {
	t.Helper()
	setClock(t, victim, offset)
	last(t, faultSpan)
	if ahead, err := clockOf(t, victim); err != nil || ahead != offset {
		t.Errorf("the clock of %s is no longer %s ahead, but %s: %v", victim, offset, ahead, err)
	}
	setClock(t, victim, 0)
	last(t, faultSpan)
}

// A clock that is wrong by an hour, and jumps back, changes nothing of what a member answers and of who is one.
func TestClockIsOff(t *testing.T) {
	healthy(t)
	victim := other("h1")
	defer func() { // its agent reads the machine's clock again
		run(t, "h1", "lab", "kill", "--name", labName, victim)
		run(t, "h1", "lab", "start", "--name", labName, victim)
		answering(t, victim)
		healthy(t)
	}()
	for _, offset := range []time.Duration{clockSpan, -clockSpan, 0} {
		setClock(t, victim, offset)
		healthy(t)
		equalAnswers(t)
	}
}

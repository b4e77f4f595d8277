package preflight

import (
	"net"
	"strings"
	"testing"
)

func TestThisMachineIsFit(t *testing.T) {
	for _, finding := range Run(Options{DataDir: t.TempDir()}, false) {
		if finding.Severity == Fatal {
			t.Error(finding)
		}
		if (finding.Severity == OK) != (finding.Advice == "") {
			t.Errorf("advice does not fit the severity: %+v", finding)
		}
	}
}

func TestPortInUseIsFatalAndSaysWhatToDo(t *testing.T) {
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := uint16(listener.Addr().(*net.TCPAddr).Port)
	err = FirstFatal([]Finding{clock(), tcpPort(port)})
	if err == nil || !strings.Contains(err.Error(), "in use by another program") || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("the error is %v", err)
	}
}

func TestMissingDataFolderIsMeasuredOnItsParent(t *testing.T) {
	if finding := fsync(t.TempDir() + "/not/there/yet"); !strings.Contains(finding.Detail, "fsync") {
		t.Errorf("found %+v", finding)
	}
}

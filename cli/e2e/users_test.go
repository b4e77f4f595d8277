package e2e

import "testing"

// TestLocalUsers gives a member of the group podvine a kubeconfig by itself, and tells another user what is missing.
func TestLocalUsers(t *testing.T) {
	script := `set -e
groupadd --force podvine
useradd --create-home --groups podvine member
useradd --create-home stranger
su member -c 'podvine kubectl get nodes'
su member -c 'podvine kubectl auth whoami'
stat --format '%a' /home/member/.cache/podvine/kubeconfig /etc/podvine/admin.kubeconfig
su stranger -c 'podvine kubectl get nodes' 2>&1 || true
`
	out, err := command("lab", "exec", "--name", labName, "h1", "--", "bash", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wants(t, string(out), "h1", "Ready", "local:member", "600\n600\n", "is not in group podvine; ask root for: usermod -aG podvine USER")
}

// TestResetRefusesWhileTheAgentRuns keeps an operator from pulling the data from under an agent.
func TestResetRefusesWhileTheAgentRuns(t *testing.T) {
	out, err := command("lab", "exec", "--name", labName, "h1", "--", "podvine", "agent", "reset", "--yes").CombinedOutput()
	if err == nil {
		t.Errorf("reset went on: %s", out)
	}
	wants(t, string(out), "the agent runs: stop it first")
}

package lab

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// DemoImage is the name of the sample application's image.
	DemoImage = "podvine.io/sample:v1"
	// DemoNodePort is where the sample application is served, on every host and on 127.0.0.1 of the machine.
	DemoNodePort = 30080
	// demoAnswerBytes bounds what is read of an answer.
	demoAnswerBytes = 4096
)

// DemoManifest deploys the sample application: a Deployment and a Service.
//
//go:embed demo.yaml
var DemoManifest []byte

// AgentArguments are the arguments of `podvine agent` in a lab's host: the first founds the cluster, the others join it.
func AgentArguments(host string) []string {
	arguments := []string{"--node-name", host, "--gossip-profile", "lab"}
	if host == hostName(1) {
		return arguments
	}
	return append([]string{"join", hostAddress(1).String(), hostAddress(2).String(), hostAddress(3).String()}, arguments...)
}

// Fetch returns the answer to a GET, asked again until it is one or ctx ends.
func Fetch(ctx context.Context, url string) (string, error) {
	const pause = 100 * time.Millisecond
	for {
		answer, err := fetchOnce(ctx, url)
		if err == nil {
			return answer, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("fetch %s: %w", url, err)
		case <-time.After(pause):
		}
	}
}

func fetchOnce(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	// Each try is a connection of its own, so that each is balanced anew.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, demoAnswerBytes))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", response.Status, answer)
	}
	return string(answer), nil
}

package images

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"app":                     "docker.io/library/app:latest",
		"app:1":                   "docker.io/library/app:1",
		"me/app":                  "docker.io/me/app:latest",
		"localhost/app:1":         "localhost/app:1",
		"reg.example:5000/a/b:v2": "reg.example:5000/a/b:v2",
	} {
		if got, err := Normalize(in); err != nil || got != want {
			t.Errorf("%s gives %s, %v; want %s", in, got, err, want)
		}
	}
	if _, err := Normalize("NOT A NAME"); err == nil {
		t.Error("nonsense is a name")
	}
}

func TestCredentials(t *testing.T) {
	s := &corev1.Secret{Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(
		`{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"*.example.org":{"username":"w","password":"x"},"reg.example/team":{"username":"t","password":"y"}}}`)}}
	creds := Credentials([]*corev1.Secret{s})
	for image, user := range map[string]string{"app": "u", "a.example.org/app": "w", "reg.example/team/app": "t", "reg.example/other/app": "", "example.org/app": ""} {
		full, err := Normalize(image)
		if err != nil {
			t.Fatal(err)
		}
		host, got := hostOf(full), ""
		if m := matching(creds, host, full); len(m) > 0 {
			got = m[0].Username
		}
		if got != user {
			t.Errorf("%s is pulled as %q, want %q", image, got, user)
		}
	}
}

func TestChooseTakesTheOldestUnused(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := func(name string, age time.Duration) Candidate {
		return Candidate{Name: name, Digest: name, SizeBytes: 10, LastUsed: now.Add(-age)}
	}
	all := []Candidate{c("new", time.Second), c("mid", time.Hour), c("old", 3*time.Hour), c("used", 9*time.Hour)}
	var got []string
	for _, v := range Choose(all, map[string]bool{"used": true}, 15, now, time.Minute) {
		got = append(got, v.Name)
	}
	if !slices.Equal(got, []string{"old", "mid"}) {
		t.Errorf("chose %v", got)
	}
	if n := Excess(Usage{CapacityBytes: 100, AvailableBytes: 10}, DefaultThresholds()); n != 10 {
		t.Errorf("excess %d", n)
	}
	if n := Excess(Usage{CapacityBytes: 100, AvailableBytes: 16}, DefaultThresholds()); n != 0 {
		t.Errorf("excess below the mark %d", n)
	}
}

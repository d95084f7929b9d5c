package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChangesNameWhatDiffers(t *testing.T) {
	load := func(text string) *Config {
		t.Helper()
		c, err := loadText(t, text, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if got := Changes(load(wholeFile), load(wholeFile)); got != nil {
		t.Errorf("the same file: %v", got)
	}
	before := load("registries: {a.io: {credentials: {username: u, password: p}}, b.io: {hosts: []}, c.io: {endpoints: [{url: https://c.io}]}}\n" +
		"access: {htpasswd_file: htpasswd, users: {alice: {pull: [a.io/x]}, bob: {pull: [a.io/x]}}}\n")
	after := load("registries: {a.io: {credentials: {username: u, password: q}}, b.io: , c.io: {endpoints: [{url: https://c.io, proxy: none}]}, d.io: }\n" +
		"access: {htpasswd_file: htpasswd, users: {alice: {pull: [a.io/y]}, eve: {pull: [a.io/x]}}}\n" +
		"log: {level: debug}\nbandwidth: {upstream: 'sat 1MB/s, else 2MB/s', time_zone: UTC}\n")
	want := []Change{
		{"log.level", "log.level"},
		{"access.users.alice.pull", "access.users.<name>.pull"},
		{"access.users.bob", "access.users.<name>"},
		{"access.users.eve", "access.users.<name>"},
		{"registries.a.io.credentials", "registries.<name>.credentials"},
		{"registries.a.io.bandwidth", "registries.<name>.bandwidth"}, // by its zone
	}
	got := Changes(before, after)
	if len(got) < len(want) {
		t.Fatalf("%v", got)
	}
	if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
		t.Error(diff)
	}
	rest := map[string]bool{}
	for _, c := range got[len(want):] {
		rest[c.Key] = true
	}
	for _, key := range []string{"registries.c.io.endpoints", "registries.d.io", "bandwidth.upstream", "bandwidth.time_zone"} {
		if !rest[key] {
			t.Errorf("%s is not among %v", key, got)
		}
	}
	if rest["registries.b.io.hosts"] {
		t.Error("an empty list differs from none")
	}
	if !(Change{Field: "access.users.<name>"}).Within("access") || (Change{Field: "access_log"}).Within("access") {
		t.Error("what lies below a path is not what begins with it")
	}
}

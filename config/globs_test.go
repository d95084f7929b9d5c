package config

import (
	"testing"
	"time"
)

func TestGlob(t *testing.T) {
	for _, in := range []Glob{"**", "library/**", "corp/base-*", "a/{b,c}/[0-9]?"} {
		parses(t, string(in), in, string(in))
	}
	const allowed = "; allowed: a repository without its registry and without a tag, such as library/alpine, corp/* or **"
	for in, problem := range map[string]string{
		"":         "names no repository",
		"Corp/*":   "has what no name has",
		"a/b:v1":   "has what no name has",
		"/a":       "has an empty part",
		"a//b":     "has an empty part",
		"a/{b,c":   "has a bracket without its other",
		"a b":      "has what no name has",
		"a@sha256": "has what no name has",
	} {
		refuses[Glob](t, in, `"`+in+`" `+problem+allowed)
	}
}

func TestTagRule(t *testing.T) {
	parses(t, "**:latest 1m", TagRule{"**", "latest", Duration(time.Minute)}, "**:latest 1m")
	parses(t, " library/*:v[0-9]*  1d ", TagRule{"library/*", "v[0-9]*", Duration(day)}, "library/*:v[0-9]* 1d")
	parses(t, "corp/** 0", TagRule{"corp/**", "*", 0}, "corp/**:* 0s")
	const allowed = "; allowed: repository:tag and a duration, such as **:latest 1m or library/*:v[0-9]* 1d"
	for in, want := range map[string]string{
		"":                `"" is not a pattern and a duration`,
		"**:latest":       `"**:latest" is not a pattern and a duration`,
		"**:latest 1m 2m": `"**:latest 1m 2m" is not a pattern and a duration`,
		":latest 1m":      `":latest" names no repository`,
		"a: 1m":           `"a:" has what no name has`,
		"a:b:c 1m":        `"a:b:c" has what no name has`,
		"a:[b 1m":         `"a:[b" has a bracket without its other`,
		"a:b soon":        `"soon" is not a duration`,
		"a:b -1m":         `"-1m" is negative`,
	} {
		refuses[TagRule](t, in, want+allowed)
	}
	refuses[TagRule](t, "latest 1m", `"latest" could be a repository or a tag; allowed: "**:latest 1m" for the tag, "latest:* 1m" for the repository`)
}

func TestTheFirstTagRuleThatIsForATagDecides(t *testing.T) {
	c, err := loadText(t, `cache: {tag_ttl: 7s}
registries:
  docker.io: {tag_ttl: ["redis:latest 1s", "**:latest 2s", "library/**:v[0-9]* 3s", "corp/** 4s", "**:{,x} 5s"]}
  ghcr.io: {}
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		registry, repository, tag string
		want                      time.Duration
	}{
		{"docker.io", "library/redis", "latest", 1},
		{"docker.io", "library/nginx", "latest", 2},
		{"docker.io", "library/nginx", "v1.2", 3},
		{"docker.io", "library/nginx", "edge", 7},
		{"docker.io", "corp/a/b", "v1", 4},
		{"docker.io", "corp/a/b", "", 4},
		{"docker.io", "library/redis", "", 7},
		{"ghcr.io", "library/redis", "latest", 7},
		{"quay.io", "a/b", "c", 7},
	} {
		if got := c.TagTTL(tt.registry, tt.repository, tt.tag); got != tt.want*time.Second {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

func TestUsersAndExposedRepositories(t *testing.T) {
	c, err := loadText(t, `access: {htpasswd_file: htpasswd, users: {alice: {pull: [ghcr.io/corp/**, "docker.io/tools-{a,b}"]}}}
registries: {docker.io: {expose: [base-*, corp/**]}, ghcr.io: {}}
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.AnonymousAllowed() {
		t.Error("with an htpasswd, the anonymous may pull by themselves")
	}
	for _, tt := range []struct {
		registry, repository string
		want                 bool
	}{
		{"ghcr.io", "corp/a/b", true}, {"ghcr.io", "corp/a", true}, {"ghcr.io", "other/a", false}, {"docker.io", "corp/a", false},
		{"docker.io", "library/tools-b", true}, {"docker.io", "library/tools-c", false}, {"docker.io", "tools-b", false},
	} {
		if got := c.Access.Users["alice"].Match(tt.registry, tt.repository); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	for repository, want := range map[string]bool{"library/base-a": true, "base-a": false, "corp/a/b": true, "library/redis": false} {
		if got := c.Exposed("docker.io", repository); got != want {
			t.Errorf("%s is exposed: %v", repository, got)
		}
	}
	if c.Exposed("ghcr.io", "corp/a") {
		t.Error("what one registry exposes, another does too")
	}
}

func FuzzGlobs(f *testing.F) {
	for _, seed := range []string{"**", "library/**", "a/{b,c}/[0-9]?", "**:latest 1m", "- 0", "a:b 1.5d", "a:{b,c} 90s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		rereads[Glob](t, in)
		rereads[TagRule](t, in)
	})
}

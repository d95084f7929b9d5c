package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPattern(t *testing.T) {
	for in, want := range map[string]Pattern{
		"docker.io/library/alpine":           "docker.io/library/alpine",
		"docker.io/alpine:3.*":               "docker.io/library/alpine:3.*",
		"Index.Docker.io/*":                  "docker.io/library/*",
		"docker.io/**":                       "docker.io/**",
		"localhost:5001/a/b:[0-9]?":          "localhost:5001/a/b:[0-9]?",
		"ghcr.io/{owner,other}/**:{v1,Main}": "ghcr.io/{owner,other}/**:{v1,Main}",
	} {
		parses(t, in, want, string(want))
	}
	const allowed = "; " + patternAllowed
	for in, problem := range map[string]string{
		"":                           "names no repository",
		"alpine":                     "names no repository",
		"docker.io/":                 "names no repository",
		"ghcr.io/:v1":                "names no repository",
		"*/library/alpine":           "does not say which registry",
		"ghcr.io/Owner/app":          "has what no name has",
		"ghcr.io/owner/app:":         "has what no name has",
		"ghcr.io/owner/app:a/b":      "has what no name has",
		"ghcr.io/owner/app@sha256:0": "has what no name has",
		"https://ghcr.io/owner":      "has an empty part",
		"ghcr.io/owner//app":         "has an empty part",
		"ghcr.io/owner/":             "has an empty part",
		"ghcr.io/{a,b":               "has a bracket without its other",
		"ghcr.io/a:[0-9":             "has a bracket without its other",
	} {
		refuses[Pattern](t, in, `"`+in+`" `+problem+allowed)
	}
}

func TestPatternMatchesImages(t *testing.T) {
	for _, tt := range []struct {
		pattern Pattern
		image   string // registry repository tag
		want    bool
	}{
		{"docker.io/library/alpine", "docker.io library/alpine 3.20", true},
		{"docker.io/library/alpine", "docker.io library/alpine ", true},
		{"docker.io/library/alpine", "docker.io library/alpines 3.20", false},
		{"docker.io/library/alpine", "ghcr.io library/alpine 3.20", false},
		{"docker.io/library/alpine:3.*", "docker.io library/alpine 3.20", true},
		{"docker.io/library/alpine:3.*", "docker.io library/alpine edge", false},
		{"docker.io/library/alpine:3.*", "docker.io library/alpine ", false},
		{"docker.io/library/alpine:*", "docker.io library/alpine ", true},
		{"docker.io/library/*", "docker.io library/redis 7", true},
		{"docker.io/library/*", "docker.io bitnami/redis 7", false},
		{"docker.io/**", "docker.io bitnami/redis 7", true},
		{"ghcr.io/owner/**", "ghcr.io owner/a/b/c v1", true},
		{"ghcr.io/owner/*", "ghcr.io owner/a/b v1", false},
		{"ghcr.io/*/app:{v1,v2}", "ghcr.io owner/app v2", true},
		{"ghcr.io/*/app:{v1,v2}", "ghcr.io owner/app v3", false},
		{"localhost:5001/a:v[0-9]", "localhost:5001 a v7", true},
		{"localhost:5001/a:v[0-9]", "localhost:5001 a v70", false},
	} {
		image := strings.Split(tt.image, " ")
		if got := tt.pattern.Match(image[0], image[1], image[2]); got != tt.want {
			t.Errorf("%s of %q: %v", tt.pattern, image, got)
		}
	}
}

func TestScrubRate(t *testing.T) {
	parses(t, "weekly", ScrubWeekly, "weekly")
	parses(t, "off", ScrubOff, "off")
	parses(t, "20MiB/s", ScrubRate(20<<20), "20MiB/s")
	parses(t, "1.5 MB/s", ScrubRate(1.5e6), "1500kB/s")
	for _, in := range []string{"", "0", "0B/s", "unlimited", "daily", "20MiB", "20Mbit/s", "-1MB/s"} {
		refuses[ScrubRate](t, in, `"`+in+`" is not a rate of reading; allowed: weekly, off, or bytes per second as in 20MiB/s`)
	}
}

func TestWhatCannotBeKeptLikeThat(t *testing.T) {
	const atLeast = "; allowed: 16MiB or more, such as 200GiB, a percentage such as 80%, or to leave the key out for no limit but the free space"
	for _, tt := range []struct{ name, file, want string }{
		{"no room", "cache:\n  max_size: 16383KiB\n", "f.yaml:2: cache.max_size: 16383KiB has no room for an index and content" + atLeast},
		{"nothing", "cache:\n  max_size: 0\n", "f.yaml:2: cache.max_size: 0 would keep nothing" + atLeast},
		{"all free", "cache:\n  min_free: 100%\n",
			"f.yaml:2: cache.min_free: 100% would leave no room to keep anything; allowed: a size such as 20GiB, or a percentage below 100%"},
		{"no such registry", "registries: {a.io: }\ncache:\n  pin:\n  - a.io/x\n  - b.io/x\n",
			`f.yaml:5: cache.pin[1]: the registry of "b.io/x" is not configured; allowed: a.io, docker.io`},
		{"no pattern", "cache: {pin: [alpine]}\n", `f.yaml:1: cache.pin[0]: "alpine" names no repository; ` + patternAllowed},
		{"not a list", "cache: {pin: docker.io/a}\n", "f.yaml:1: cache.pin: a single value is given; allowed: a list"},
		{"index in the way of content", "data_dir: d\nindex_dir: ./d/blobs/x\n",
			`f.yaml:2: index_dir: is in "d/blobs", where content is; allowed: a directory of its own`},
		{"index in the way of all", "data_dir: /var/lib/entrepot\nindex_dir: /var/lib\n",
			`f.yaml:2: index_dir: data_dir ("/var/lib/entrepot") is in it; allowed: a directory of its own`},
		{"one directory for both", "data_dir: d\nindex_dir: d/\n", `f.yaml:2: index_dir: data_dir ("d") is in it; allowed: a directory of its own`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := loadText(t, tt.file, nil)
			if diff := cmp.Diff(tt.want, message(err)); diff != "" || c != nil {
				t.Errorf("config %v, error (-want +got):\n%s", c, diff)
			}
		})
	}
	for _, file := range []string{"cache: {max_size: 16MiB, min_free: 99.9%}\n", "data_dir: d\nindex_dir: d/records\n", "data_dir: d\nindex_dir: d2\n"} {
		if _, err := loadText(t, file, nil); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := Load("", []string{"ENTREPOT_CACHE_PIN=ghcr.io/x"}); message(err) != `ENTREPOT_CACHE_PIN: the registry of "ghcr.io/x" is not configured; allowed: docker.io` {
		t.Error(err)
	}
}

func FuzzPattern(f *testing.F) {
	roundTrips[Pattern](f, "docker.io/library/alpine:*", "ghcr.io/owner/**", "a:1/b:c", "docker.io/{a,b}", "a/b:", "a/[", `a/\`)
}

func FuzzScrubRate(f *testing.F) {
	roundTrips[ScrubRate](f, "weekly", "off", "20MiB/s", "0.1kB/s", "1e3MB/s")
}

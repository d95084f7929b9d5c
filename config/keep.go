package config

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Pattern says which images are meant: registry/repository, or registry/repository:tag. In repository and tag, * stands for any text
// without a slash, ** for any number of parts of a repository's name, ? for one character, [a-c] for one of several, {a,b} for
// one text of several. Without a tag all tags are meant. The registry stands for itself, in its canonical spelling, and a name
// of one part in docker.io has its library/.
type Pattern string

const patternAllowed = "allowed: registry/repository or registry/repository:tag, such as docker.io/library/alpine:* or ghcr.io/owner/**"

// What names are made of, with what stands for some of that. A digest's @ is in neither: content is pinned by the name that it is
// pulled by.
var (
	repositoryPattern = regexp.MustCompile(`^[a-z0-9._/*?,!^{}\[\]-]+$`)
	tagPattern        = regexp.MustCompile(`^[a-zA-Z0-9._*?,!^{}\[\]-]+$`)
)

// UnmarshalText parses a pattern.
func (p *Pattern) UnmarshalText(text []byte) error {
	registry, repository, tag, tagged := Pattern(text).cut()
	registry = CanonicalRegistry(registry)
	if registry == dockerHub {
		repository = official(repository)
	}
	problem := imageProblem(repository, tag, tagged)
	if problem != "names no repository" && strings.ContainsAny(registry, "*?[{") {
		problem = "does not say which registry"
	}
	if problem != "" {
		return fmt.Errorf("%s %s; %s", quote(string(text)), problem, patternAllowed)
	}
	*p = Pattern(registry + "/" + repository)
	if tagged {
		*p += Pattern(":" + tag)
	}
	return nil
}

// cut returns the parts of a pattern. A registry may have a port, so its colon is no tag's.
func (p Pattern) cut() (registry, repository, tag string, tagged bool) {
	registry, rest, _ := strings.Cut(string(p), "/")
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		return registry, rest[:i], rest[i+1:], true
	}
	return registry, rest, "", false
}

// Match reports whether an image is meant. The registry is in its canonical spelling; tag is "" for one that is known by its
// digest alone, which is meant by patterns for all tags.
func (p Pattern) Match(registry, repository, tag string) bool {
	of, repositories, tags, tagged := p.cut()
	return of == registry && doublestar.MatchUnvalidated(repositories, repository) && (!tagged || matchTag(tags, tag))
}

// ScrubRate is how fast kept content is read again to see whether it is still right: in bytes per second, or one of the following.
type ScrubRate int64

const (
	ScrubOff    ScrubRate = 0  // not at all
	ScrubWeekly ScrubRate = -1 // as fast as it takes to have read everything in a week
)

// UnmarshalText parses weekly, off, or a rate such as 20MiB/s. 0 is refused: it could mean off, or no limit.
func (r *ScrubRate) UnmarshalText(text []byte) error {
	switch string(text) {
	case "weekly":
		*r = ScrubWeekly
		return nil
	case "off":
		*r = ScrubOff
		return nil
	}
	var rate Rate
	if err := rate.UnmarshalText(text); err != nil || rate == 0 || strings.Contains(string(text), "bit") {
		return fmt.Errorf("%s is not a rate of reading; allowed: weekly, off, or bytes per second as in 20MiB/s", quote(string(text)))
	}
	*r = ScrubRate(rate)
	return nil
}

// MarshalText returns String.
func (r ScrubRate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String returns the rate as UnmarshalText reads it.
func (r ScrubRate) String() string {
	switch r {
	case ScrubOff:
		return "off"
	case ScrubWeekly:
		return "weekly"
	}
	return Rate(r).String()
}

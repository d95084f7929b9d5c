package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// Glob says which repositories of a registry are meant, as the middle part of a [Pattern] does: library/** or corp/base-*. A name of one
// part in docker.io has its library/.
type Glob string

// UnmarshalText parses a glob.
func (g *Glob) UnmarshalText(text []byte) error {
	if problem := imageProblem(string(text), "", false); problem != "" {
		return fmt.Errorf("%s %s; allowed: a repository without its registry and without a tag, such as library/alpine, corp/* or **",
			quote(string(text)), problem)
	}
	*g = Glob(text)
	return nil
}

// Match reports whether a repository is meant.
func (g Glob) Match(repository string) bool {
	return doublestar.MatchUnvalidated(string(g), repository)
}

// imageProblem says what keeps a text from being a repository, or repository and tag, in which parts may stand for others. "" is nothing.
func imageProblem(repository, tag string, tagged bool) string {
	switch {
	case repository == "":
		return "names no repository"
	case !repositoryPattern.MatchString(repository) || tagged && !tagPattern.MatchString(tag):
		return "has what no name has"
	case strings.HasPrefix(repository, "/") || strings.HasSuffix(repository, "/") || strings.Contains(repository, "//"):
		return "has an empty part"
	case !doublestar.ValidatePattern(repository) || !doublestar.ValidatePattern(tag):
		return "has a bracket without its other"
	}
	return ""
}

// official returns a repository as docker.io names it: what has one part is in library/.
func official(repository string) string {
	if strings.Contains(repository, "/") || repository == "" || repository == "**" {
		return repository
	}
	return "library/" + repository
}

// matchTag reports whether a pattern means a tag; "" is none, which only what is for all tags means.
func matchTag(pattern, tag string) bool {
	if tag == "" {
		return strings.Trim(pattern, "*") == ""
	}
	return doublestar.MatchUnvalidated(pattern, tag)
}

// TagRule says how long a tag is answered without asking upstream, for the tags that its pattern means.
type TagRule struct {
	Repository Glob
	Tag        string // pattern; "*" for all
	TTL        Duration
}

// UnmarshalText parses repository:tag and a duration, such as "**:latest 1m". Without a tag all tags are meant. One word, which could
// be a tag's as well, is refused.
func (r *TagRule) UnmarshalText(text []byte) error {
	const allowed = "allowed: repository:tag and a duration, such as **:latest 1m or library/*:v[0-9]* 1d"
	words := strings.Fields(string(text))
	if len(words) != 2 {
		return fmt.Errorf("%s is not a pattern and a duration; %s", quote(string(text)), allowed)
	}
	repository, tag, tagged := strings.Cut(words[0], ":")
	if problem := imageProblem(repository, tag, tagged); problem != "" {
		return fmt.Errorf("%s %s; %s", quote(words[0]), problem, allowed)
	}
	if !tagged && !strings.ContainsAny(repository, "/*") {
		return fmt.Errorf("%s could be a repository or a tag; allowed: %s for the tag, %s for the repository", quote(repository),
			quote("**:"+words[0]+" "+words[1]), quote(words[0]+":* "+words[1]))
	}
	ttl, err := parseDuration(words[1])
	if err != nil {
		return fmt.Errorf("%s %s; %s", quote(words[1]), err, allowed)
	}
	if !tagged {
		tag = "*"
	}
	*r = TagRule{Glob(repository), tag, Duration(ttl)}
	return nil
}

// MarshalText returns String.
func (r TagRule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String returns the rule as UnmarshalText reads it.
func (r TagRule) String() string { return string(r.Repository) + ":" + r.Tag + " " + r.TTL.String() }

// Match reports whether the rule is for a tag; "" is the list of all tags.
func (r TagRule) Match(repository, tag string) bool {
	return r.Repository.Match(repository) && matchTag(r.Tag, tag)
}

// TagTTL is how long what a tag of a registry's repository means is believed; tag "" is for the list of its tags.
func (c *Config) TagTTL(registry, repository, tag string) time.Duration {
	for _, rule := range c.Registries[registry].TagTTL {
		if rule.Match(repository, tag) {
			return time.Duration(rule.TTL)
		}
	}
	return time.Duration(c.Cache.TagTTL)
}

// Exposed reports whether everybody may have a repository, whatever upstream shows to the anonymous.
func (c *Config) Exposed(registry, repository string) bool {
	for _, glob := range c.Registries[registry].Expose {
		if glob.Match(repository) {
			return true
		}
	}
	return false
}

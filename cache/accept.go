package cache

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifestTypes are what the cache asks for on everybody's behalf: a registry that gets to choose among all of them
// answers with what it has.
var manifestTypes = []string{
	ocispec.MediaTypeImageIndex,
	ocispec.MediaTypeImageManifest,
	dockerList,
	dockerManifest,
}

// The media types that Docker had before the OCI did.
const (
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// Accept is what media types a client takes. The zero value takes all.
type Accept struct{ headers []string }

// ParseAccept takes the values of a request's Accept headers, all of them: clients send one type a header line, in random
// order. Preferences (q=…) are not looked at, but for q=0, which is a refusal.
func ParseAccept(headers []string) Accept { return Accept{headers} }

// each are the media types that are named, one after the other, as often as they are.
func (a Accept) each(yield func(string) bool) {
	for _, h := range a.headers {
		for entry := range strings.SplitSeq(h, ",") {
			t, params, _ := strings.Cut(entry, ";")
			t = strings.ToLower(strings.TrimSpace(t))
			if t != "" && !refused(params) && !yield(t) {
				return
			}
		}
	}
}

func refused(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			return strings.Trim(strings.TrimSpace(value), "0.") == ""
		}
	}
	return false
}

// takes reports whether the client takes that media type.
func (a Accept) takes(mediaType string) bool {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	kind, _, _ := strings.Cut(mediaType, "/")
	all := true
	for t := range a.each {
		if of, ok := strings.CutSuffix(t, "/*"); t == mediaType || ok && (of == "*" || of == kind) {
			return true
		}
		all = false
	}
	return all
}

// types are the media types in an order that is the same for all who take the same.
func (a Accept) types() []string { return slices.Compact(slices.Sorted(a.each)) }

// String is the one header line that says the same.
func (a Accept) String() string { return strings.Join(a.types(), ", ") }

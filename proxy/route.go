package proxy

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/entrepot/entrepot/cache"
)

// kind is what a request asks for.
type kind string

const (
	kindPing      kind = "ping"
	kindManifest  kind = "manifest"
	kindBlob      kind = "blob"
	kindTags      kind = "tags"
	kindReferrers kind = "referrers"
	kindOther     kind = "other"
)

// target is a request, parsed: a repository of a configured registry, and what of it.
type target struct {
	repo      cache.Repository
	kind      kind
	reference string          // as in the path; empty for kindTags
	ref       cache.Reference // what it is; empty for kindTags
}

// dockerHub has names of its own, and images without an owner.
const dockerHub = "docker.io"

// Registry is how clients may name a registry that is mirrored.
type Registry struct {
	Name  string   // in paths and as ?ns=
	Hosts []string // Host headers that stand for it, without or with a port
}

// routes is the closed table of registries: what is not in it is an error, and never dialled.
type routes struct {
	names     map[string]string   // of the registries, each by itself: what a request says is not kept
	canonical func(string) string // the one spelling of a registry's name
	hosts     map[string]string   // Host → name
	fallback  string
}

func newRoutes(registries []Registry, canonical func(string) string, fallback string) routes {
	t := routes{names: make(map[string]string), canonical: canonical, hosts: make(map[string]string), fallback: fallback}
	for _, r := range registries {
		t.names[r.Name] = r.Name
		for _, host := range r.Hosts {
			t.hosts[strings.ToLower(host)] = r.Name
		}
	}
	return t
}

// parse finds what a pull request asks for. rest is its path below /v2/; prefix is the path component before /v2/, if any. The
// reference is left as it is.
func (t routes) parse(r *http.Request, prefix, rest string) (target, error) {
	registry, rest, err := t.registry(r, prefix, rest)
	if err != nil {
		return target{}, err
	}
	name, k, reference, ok := splitPath(rest)
	if !ok {
		return target{}, &apiError{status: http.StatusNotFound, code: codeUnsupported,
			message: "no such endpoint: this mirror serves manifests, blobs, tags/list and referrers of repositories"}
	}
	if !validName(name) {
		return target{}, &apiError{status: http.StatusBadRequest, code: codeNameInvalid,
			message: fmt.Sprintf("%.300q is no repository name", name)}
	}
	first, _, several := strings.Cut(name, "/")
	if registry == dockerHub {
		if !several {
			name = "library/" + name
		} else if strings.Contains(first, ".") { // no owner on Docker Hub: a registry that was meant
			return target{}, t.unknown(first)
		}
	}
	return target{repo: cache.Repository{Registry: registry, Name: name}, kind: k, reference: reference}, nil
}

// parseRef takes the reference of a target, as its kind has it.
func (t *target) parseRef() (err error) {
	switch t.kind {
	case kindManifest:
		t.ref, err = parseReference(t.reference)
	case kindBlob, kindReferrers:
		t.ref.Digest, err = parseDigest(t.reference)
	}
	return err
}

// registry finds the registry that a request means, and what is left of the path: by ?ns=, by Host, by the path, or the
// default.
func (t routes) registry(r *http.Request, prefix, rest string) (registry, left string, err error) {
	first, afterFirst, _ := strings.Cut(rest, "/")
	inPath, isRegistry := t.known(first)
	if ns := namespace(r); ns != "" {
		registry, ok := t.known(ns)
		if !ok {
			return "", "", t.unknown(ns)
		}
		if isRegistry && inPath == registry { // said twice: by a mirror's path and by ns
			rest = afterFirst
		}
		return registry, rest, nil
	}
	if registry, ok := t.byHost(r.Host); ok {
		return registry, rest, nil
	}
	if prefix != "" {
		registry, ok := t.known(prefix)
		if !ok {
			return "", "", t.unknown(prefix)
		}
		return registry, rest, nil
	}
	if isRegistry {
		return inPath, afterFirst, nil
	}
	return t.fallback, rest, nil
}

// known returns the name in the table that a client's name for a registry stands for; ok is false if it is in there by none.
func (t routes) known(name string) (registry string, ok bool) {
	registry, ok = t.names[t.canonical(name)]
	return registry, ok
}

// namespace is the value of ?ns=, by which containerd tells a mirror which registry it means.
func namespace(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	return r.URL.Query().Get("ns")
}

func (t routes) byHost(host string) (registry string, ok bool) {
	if len(t.hosts) == 0 {
		return "", false
	}
	host = strings.ToLower(host)
	if registry, ok = t.hosts[host]; ok {
		return registry, true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		registry, ok = t.hosts[name]
	}
	return registry, ok
}

func (t routes) unknown(name string) error {
	return &apiError{status: http.StatusNotFound, code: codeNameUnknown,
		message: fmt.Sprintf("registry %.100q is not mirrored here", name)}
}

// isUpload reports whether a path below /v2/ is that of uploads, <name>/blobs/uploads/, or of one of them.
func isUpload(path string) bool {
	parent := path[:max(0, strings.LastIndexByte(path, '/'))]
	return strings.HasSuffix(path, "/blobs/uploads") || strings.HasSuffix(parent, "/blobs/uploads")
}

// splitPath takes <name>/manifests/<reference> and its like apart, from the right: words such as "blobs" may occur in
// names.
func splitPath(path string) (name string, k kind, reference string, ok bool) {
	if name, ok = strings.CutSuffix(path, "/tags/list"); ok {
		return name, kindTags, "", true
	}
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", "", "", false
	}
	path, reference = path[:i], path[i+1:]
	for _, of := range []struct {
		suffix string
		kind   kind
	}{{"/manifests", kindManifest}, {"/blobs", kindBlob}, {"/referrers", kindReferrers}} {
		if name, ok = strings.CutSuffix(path, of.suffix); ok {
			return name, of.kind, reference, true
		}
	}
	return "", "", "", false
}

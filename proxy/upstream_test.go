package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry is an upstream that does as it is told: honest unless a fault says otherwise, and strict about what it is asked.
type registry struct {
	t      testing.TB
	server *httptest.Server

	mu        sync.Mutex
	manifests map[string]manifest // by "name:tag" and "name@digest"
	blobs     map[string][]byte   // by "name@digest"
	lists     map[string]list     // by path below /v2/ with query
	log       []string            // "GET /v2/…", as they came
	ranged    []string            // the Range headers of requests for blobs
	fault     func(w http.ResponseWriter, r *http.Request) bool
}

type manifest struct {
	mediaType string
	body      []byte
}

type list struct{ link, body string }

func newRegistry(t testing.TB) *registry {
	u := &registry{t: t, manifests: map[string]manifest{}, blobs: map[string][]byte{}, lists: map[string]list{}}
	u.server = httptest.NewServer(u)
	t.Cleanup(u.server.Close)
	return u
}

// stop makes the upstream unreachable, as if its process had ended.
func (u *registry) stop() { u.server.Close() }

// fail has f answer requests that it returns true for; nil mends the upstream.
func (u *registry) fail(f func(w http.ResponseWriter, r *http.Request) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fault = f
}

func (u *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.log = append(u.log, r.Method+" "+r.URL.RequestURI())
	if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
		u.ranged = append(u.ranged, r.Header.Get("Range"))
	}
	fault := u.fault
	u.mu.Unlock()
	if e := r.Header.Get("Accept-Encoding"); e != "" && e != "identity" {
		u.t.Errorf("upstream was offered an encoding: %v", r.Header)
	}
	if fault != nil && fault(w, r) {
		return
	}
	u.serve(w, r)
}

func (u *registry) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	u.mu.Lock()
	l, isList := u.lists[path+"?"+r.URL.RawQuery]
	u.mu.Unlock()
	if isList {
		if l.link != "" {
			w.Header().Set("Link", l.link)
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, l.body)
		return
	}
	if name, reference, ok := strings.Cut(path, "/manifests/"); ok {
		u.serveManifest(w, r, name, reference)
		return
	}
	if name, d, ok := strings.Cut(path, "/blobs/"); ok {
		u.mu.Lock()
		b, ok := u.blobs[name+"@"+d]
		u.mu.Unlock()
		if ok {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("ETag", `"`+d+`"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			return
		}
		refuse(w, 404, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	refuse(w, 404, "NAME_UNKNOWN", "repository name not known to registry")
}

func (u *registry) serveManifest(w http.ResponseWriter, r *http.Request, name, reference string) {
	sep := ":"
	if strings.Contains(reference, ":") {
		sep = "@"
	}
	u.mu.Lock()
	m, ok := u.manifests[name+sep+reference]
	u.mu.Unlock()
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if !ok || !strings.Contains(accept, m.mediaType) {
		refuse(w, 404, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(m.body).String())
	w.Header().Set("Content-Length", fmt.Sprint(len(m.body)))
	w.Write(m.body)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

// blob puts a blob into repositories.
func (u *registry) blob(content []byte, repositories ...string) digest.Digest {
	d := digest.FromBytes(content)
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, name := range repositories {
		u.blobs[name+"@"+d.String()] = content
	}
	return d
}

// manifest puts a manifest into a repository, under a tag too if there is one.
func (u *registry) manifest(name, tag, mediaType, body string) digest.Digest {
	d := digest.FromString(body)
	u.mu.Lock()
	defer u.mu.Unlock()
	m := manifest{mediaType, []byte(body)}
	u.manifests[name+"@"+d.String()] = m
	if tag != "" {
		u.manifests[name+":"+tag] = m
	}
	return d
}

// image puts an image of these layers, with a config of its own, into a repository.
func (u *registry) image(name, tag string, layers ...[]byte) digest.Digest {
	config := []byte(fmt.Sprintf(`{"image":%q}`, name+":"+tag))
	body := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":` +
		descriptor("application/vnd.oci.image.config.v1+json", u.blob(config, name), len(config)) + `,"layers":[`
	for i, l := range layers {
		if i > 0 {
			body += ","
		}
		body += descriptor("application/vnd.oci.image.layer.v1.tar+gzip", u.blob(l, name), len(l))
	}
	return u.manifest(name, tag, ocispec.MediaTypeImageManifest, body+"]}")
}

func descriptor(mediaType string, d digest.Digest, size int) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, d, size)
}

// count is how many requests upstream has seen that begin so.
func (u *registry) count(prefix string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for _, entry := range u.log {
		if strings.HasPrefix(entry, prefix) {
			n++
		}
	}
	return n
}

// ranges are the Range headers of the requests for blobs.
func (u *registry) ranges() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.ranged)
}

// forget empties the log of requests.
func (u *registry) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.log = nil
}

// hold has upstream stop in the middle of each blob's body, after n bytes, until the returned function is called.
func (u *registry) hold(n int64) (release func()) {
	open := make(chan struct{})
	release = sync.OnceFunc(func() { close(open) })
	u.t.Cleanup(release)
	u.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		u.serve(&holding{w, n, open}, r)
		return true
	})
	return release
}

// holding is a writer that pauses after so many bytes of the body.
type holding struct {
	http.ResponseWriter
	left int64
	open chan struct{}
}

func (h *holding) Write(p []byte) (int, error) {
	now := p[:min(int64(len(p)), h.left)]
	n, err := h.ResponseWriter.Write(now)
	h.left -= int64(n)
	if err != nil || len(now) == len(p) {
		return n, err
	}
	http.NewResponseController(h.ResponseWriter).Flush()
	<-h.open
	h.left = 1 << 62
	m, err := h.ResponseWriter.Write(p[n:])
	return n + m, err
}

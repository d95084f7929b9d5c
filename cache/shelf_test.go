package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/upstream"
)

// shelf is an upstream with one repository. All that it holds has a name, by which it logs what it is asked.
type shelf struct {
	Upstream // none: listings are not asked for

	mu    sync.Mutex
	items map[string]item // by tag and by digest
	log   []string
	fault func(ctx context.Context, asked string) error // of a request, "GET index" say; it may wait

	bodies  chan struct{}          // bodies of blobs wait for it; nil: they don't
	waiting map[string]func() bool // by the name of a blob: whether anybody waits for it

	down, blobless atomic.Bool
}

// stalled is a body that waits before each read.
type stalled struct {
	io.Reader
	ctx  context.Context
	open <-chan struct{}
}

func (b stalled) Read(p []byte) (int, error) {
	select {
	case <-b.open:
		return b.Reader.Read(p)
	case <-b.ctx.Done():
		return 0, context.Cause(b.ctx)
	}
}

type item struct {
	ocispec.Descriptor
	name    string
	content []byte
}

func newShelf() *shelf { return &shelf{items: map[string]item{}, waiting: map[string]func() bool{}} }

func (s *shelf) ask(ctx context.Context, method, reference string) (item, error) {
	s.mu.Lock()
	is, ok := s.items[reference]
	asked, fault := method+" "+is.name, s.fault
	s.log = append(s.log, asked)
	s.mu.Unlock()
	if fault != nil {
		if err := fault(ctx, asked); err != nil {
			return item{}, err
		}
	}
	switch {
	case ctx.Err() != nil:
		return item{}, context.Cause(ctx)
	case !ok:
		return item{}, &upstream.Error{Status: 404}
	}
	return is, nil
}

func (s *shelf) Down() bool      { return s.down.Load() }
func (s *shelf) BlobsDown() bool { return s.blobless.Load() }

func (s *shelf) Resolve(ctx context.Context, _, reference string, _ []string) (ocispec.Descriptor, error) {
	is, err := s.ask(ctx, "HEAD", reference)
	return is.Descriptor, err
}

func (s *shelf) Manifest(ctx context.Context, _, reference string, _ []string) (ocispec.Descriptor, []byte, error) {
	is, err := s.ask(ctx, "GET", reference)
	return is.Descriptor, is.content, err
}

func (s *shelf) StatBlob(ctx context.Context, _ string, d digest.Digest) (int64, error) {
	is, err := s.ask(ctx, "HEAD", d.String())
	return is.Size, err
}

func (s *shelf) OpenBlob(ctx context.Context, req upstream.BlobRequest) (*upstream.BlobStream, error) {
	is, err := s.ask(ctx, "GET", req.Digest.String())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[is.name] = req.Waiting
	var body io.Reader = bytes.NewReader(is.content[req.Offset:])
	if s.bodies != nil {
		body = stalled{body, ctx, s.bodies}
	}
	return &upstream.BlobStream{ReadCloser: io.NopCloser(body), Size: is.Size}, nil
}

// fail has f decide about requests; nil mends the upstream.
func (s *shelf) fail(f func(ctx context.Context, asked string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// hold has requests that contain one of the words wait until the returned function is called, or they are given up.
func (s *shelf) hold(words ...string) (release func()) {
	open := make(chan struct{})
	s.fail(func(ctx context.Context, asked string) error {
		if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(asked, word) }) {
			select {
			case <-open:
			case <-ctx.Done():
			}
		}
		return nil
	})
	return func() { close(open) }
}

// refuse has requests that contain a word fail with a status; 0 is silence.
func (s *shelf) refuse(word string, status int) {
	s.fail(func(_ context.Context, asked string) error {
		if strings.Contains(asked, word) {
			return &upstream.Error{Status: status}
		}
		return nil
	})
}

// asked returns what upstream was asked since the last call, once all that goes on by itself waits or has ended.
func (s *shelf) asked() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.log)
	log := strings.Join(s.log, ", ")
	s.log = nil
	return log
}

// put puts content on the shelf, by its digest and by a tag if there is one.
func (s *shelf) put(tag, name, mediaType, content string) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items[desc.Digest.String()] = item{desc, name, []byte(content)}
	if tag != "" {
		s.items[tag] = item{desc, tag, []byte(content)}
	}
	return desc
}

func (s *shelf) tag(tag string, desc ocispec.Descriptor) {
	is := s.items[desc.Digest.String()]
	s.put(tag, is.name, is.MediaType, string(is.content))
}

// image puts an image whose parts are named after it: "amd64 config", "amd64 layer 0".
func (s *shelf) image(name string, layers int) ocispec.Descriptor {
	text := func(d ocispec.Descriptor) string {
		return fmt.Sprintf(`{"mediaType":"x/y","digest":%q,"size":%d}`, d.Digest, d.Size)
	}
	var all []string
	for i := range layers {
		part := fmt.Sprintf("%s layer %d", name, i)
		all = append(all, text(s.put("", part, "x/y", part)))
	}
	config := text(s.put("", name+" config", "x/y", name+" config"))
	return s.put("", name, ocispec.MediaTypeImageManifest, `{"config":`+config+`,"layers":[`+strings.Join(all, ",")+`]}`)
}

// index puts an index of images, each for the platform that it is named after.
func (s *shelf) index(name string, images ...ocispec.Descriptor) ocispec.Descriptor {
	var all []string
	for _, d := range images {
		os, architecture, _ := strings.Cut(s.items[d.Digest.String()].name, "/")
		architecture, variant, _ := strings.Cut(architecture, "/")
		all = append(all, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":%q,"architecture":%q,"variant":%q}}`,
			d.MediaType, d.Digest, d.Size, os, architecture, variant))
	}
	return s.put("", name, ocispec.MediaTypeImageIndex, `{"manifests":[`+strings.Join(all, ",")+`]}`)
}

// here is an image's name that is for the machine that the test runs on.
var here = "linux/" + runtime.GOARCH

var testRepo = Repository{Registry: "docker.io", Name: "library/a"}

// reader is a cache before a shelf, in a bubble, and what a client does with it.
type reader struct {
	*Cache
	t    *testing.T
	logs *observer.ObservedLogs
}

func newReader(t *testing.T, s *shelf, opts Options) *reader {
	core, logs := observer.New(zapcore.InfoLevel)
	if opts.TagTTL == nil {
		opts.TagTTL = func(Repository, string) time.Duration { return time.Hour }
	}
	opts.Log = zap.New(core)
	if opts.DataDir == "" {
		opts.DataDir = t.TempDir()
	}
	opts.Upstreams = map[string]Upstream{"docker.io": s}
	c, err := open(t.Context(), opts) // what goes on behind the requests would go by the test's clock
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{c, t, logs}
	t.Cleanup(r.close)
	return r
}

// close closes the cache, if it is open.
func (r *reader) close() {
	if r.ctx.Err() != nil {
		return
	}
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *reader) head(tag string) Outcome {
	r.t.Helper()
	m, err := r.Manifest(r.t.Context(), testRepo, Reference{Tag: tag}, Accept{}, true)
	if err != nil {
		r.t.Fatal(err)
	}
	return m.Verdict.Outcome
}

func (r *reader) get(desc ocispec.Descriptor) Outcome {
	r.t.Helper()
	m, err := r.Manifest(r.t.Context(), testRepo, Reference{Digest: desc.Digest}, Accept{}, false)
	if err != nil {
		r.t.Fatal(err)
	}
	if digest.FromBytes(m.Body) != desc.Digest {
		r.t.Error("another manifest")
	}
	return m.Verdict.Outcome
}

func (r *reader) blob(name string) Outcome {
	r.t.Helper()
	b, err := r.Blob(r.t.Context(), testRepo, digest.FromString(name), Whole)
	if err != nil {
		r.t.Fatal(err)
	}
	got, err := io.ReadAll(b.Content)
	if err != nil || string(got) != name {
		r.t.Errorf("%q, %v", got, err)
	}
	if err := b.Close(); err != nil {
		r.t.Error(err)
	}
	return b.Verdict.Outcome
}

func expectAsked(t *testing.T, s *shelf, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := s.asked(); got != strings.Join(want, ", ") {
		t.Errorf("upstream was asked %s, want %s", got, strings.Join(want, ", "))
	}
}

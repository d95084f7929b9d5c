package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/e2e/bench/origin"
	"github.com/entrepot/entrepot/e2e/testbed"
)

// shop is an entrepot before a registry whose content is computed: there can be as much of it as a test wants.
type shop struct {
	store    origin.Store
	upstream *origin.Server
	entrepot *testbed.Entrepot
	pushes   int
	customer
}

// openShop starts both. The options' Upstream is the shop's own.
func openShop(t *testing.T, line origin.Line, options testbed.EntrepotOptions) *shop {
	t.Helper()
	s := &shop{}
	var err error
	if s.upstream, err = origin.Serve(&s.store, line); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.upstream.Close(); err != nil {
			t.Error(err)
		}
	})
	options.Upstream = "http://" + s.upstream.Address
	s.entrepot = startEntrepot(t, options)
	s.customer = newCustomer(s.entrepot.URL())
	t.Cleanup(s.transport.CloseIdleConnections)
	return s
}

// push makes an image of layers of those sizes, in a repository of its own: nobody knows its tag yet.
func (s *shop) push(t *testing.T, repository string, sizes ...int64) origin.Image {
	t.Helper()
	s.pushes++
	repository = fmt.Sprintf("%s-%d", repository, s.pushes)
	var layers []origin.Blob
	for _, size := range sizes {
		layers = append(layers, s.store.Blob(size))
	}
	i, err := s.store.Push(repository, "1.0", layers...)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// customer pulls from a mirror and compares every byte with what is right. What it pulls has no room in memory.
type customer struct {
	base      string
	transport *http.Transport
}

func newCustomer(base string) customer {
	return customer{base: base, transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}
}

// errWrong is content that is not what was asked for. Nothing excuses it: neither a full disk nor a process that is killed.
var errWrong = errors.New("wrong content")

// answer is what a customer got.
type answer struct {
	// digest is what the header says of the content.
	digest, verdict string
	length          int64
}

func (a answer) hit() bool { return a.verdict == "hit" || strings.HasPrefix(a.verdict, "hit;") }

// manifestTypes are what clients accept of manifests.
var manifestTypes = []string{
	"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
}

// ask sends a request and returns its answer, whose body the caller closes. Any other status than the one wanted is an error.
func (c customer) ask(ctx context.Context, method, path, ranges string, want int) (answer, io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return answer{}, nil, err
	}
	req.Header["Accept"] = manifestTypes
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return answer{}, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	a := answer{
		digest:  resp.Header.Get("Docker-Content-Digest"),
		verdict: strings.TrimPrefix(resp.Header.Get("Cache-Status"), "entrepot; "),
		length:  resp.ContentLength,
	}
	if resp.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // only for the message
		resp.Body.Close()
		return a, nil, fmt.Errorf("%s %s %s: %s (%s): %s", method, path, ranges, resp.Status, a.verdict, strings.TrimSpace(string(text)))
	}
	return a, resp.Body, nil
}

// head asks for the headers alone.
func (c customer) head(ctx context.Context, path string) (answer, error) {
	a, body, err := c.ask(ctx, http.MethodHead, path, "", http.StatusOK)
	if err == nil {
		body.Close()
	}
	return a, err
}

// blob fetches all of a blob of the repository.
func (c customer) blob(ctx context.Context, i origin.Image, b origin.Blob) (answer, error) {
	return c.body(ctx, i.BlobPath(b.Digest), b, 0, b.Size, nil)
}

// part fetches a part of it, up to but not including to.
func (c customer) part(ctx context.Context, i origin.Image, b origin.Blob, from, to int64) (answer, error) {
	return c.body(ctx, i.BlobPath(b.Digest), b, from, to, nil)
}

// leave begins to fetch it, and hangs up after some bytes.
func (c customer) leave(ctx context.Context, i origin.Image, b origin.Blob, after int64) (answer, error) {
	errLeft := errors.New("left")
	a, err := c.body(ctx, i.BlobPath(b.Digest), b, 0, b.Size, func(read int64) error {
		if read >= after {
			return errLeft
		}
		return nil
	})
	if errors.Is(err, errLeft) {
		return a, nil
	}
	return a, err
}

// body fetches a part of a blob, all of it from 0 to its size, and calls along, which may be nil, after every piece with how
// much there was so far.
func (c customer) body(
	ctx context.Context, path string, b origin.Blob, from, to int64, along func(read int64) error,
) (answer, error) {
	ranges, status := "", http.StatusOK
	if from > 0 || to < b.Size {
		ranges, status = fmt.Sprintf("bytes=%d-%d", from, to-1), http.StatusPartialContent
	}
	a, body, err := c.ask(ctx, http.MethodGet, path, ranges, status)
	if err != nil {
		return a, err
	}
	defer body.Close()
	if a.length != to-from {
		return a, fmt.Errorf("GET %s %s: %d bytes are promised, want %d: %w", path, ranges, a.length, to-from, errWrong)
	}
	into := &checked{check: b.Check(from), along: along}
	if n, err := io.Copy(into, body); err != nil {
		return a, fmt.Errorf("GET %s %s (%s): after %d of %d bytes: %w", path, ranges, a.verdict, n, to-from, err)
	} else if n != to-from {
		return a, fmt.Errorf("GET %s %s (%s): the body ends well after %d bytes of %d: %w", path, ranges, a.verdict, n, to-from, errWrong)
	}
	return a, nil
}

// checked passes what is right on to along.
type checked struct {
	check *origin.Check
	along func(read int64) error
	read  int64
}

func (c *checked) Write(p []byte) (int, error) {
	n, err := c.check.Write(p)
	c.read += int64(n)
	switch {
	case err != nil:
		return n, fmt.Errorf("%w: %w", err, errWrong)
	case c.along != nil:
		return n, c.along(c.read)
	}
	return n, nil
}

// document fetches a manifest or a configuration. It has the digest that the answer claims, and the path, if it names one.
func (c customer) document(ctx context.Context, path string) (answer, error) {
	a, body, err := c.ask(ctx, http.MethodGet, path, "", http.StatusOK)
	if err != nil {
		return a, err
	}
	defer body.Close()
	var sum hash.Hash = sha256.New()
	if _, err := io.Copy(sum, body); err != nil {
		return a, fmt.Errorf("GET %s (%s): %w", path, a.verdict, err)
	}
	got := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if reference := path[strings.LastIndex(path, "/")+1:]; a.digest != got || strings.Contains(reference, ":") && reference != got {
		return a, fmt.Errorf("GET %s (%s): the body has digest %s, the header says %q: %w", path, a.verdict, got, a.digest, errWrong)
	}
	return a, nil
}

// image pulls an image by its tag, as clients do: three layers at once. along is told of each piece of a layer, from several
// goroutines at once; it may be nil.
func (c customer) image(ctx context.Context, i origin.Image, along func(read int64) error) error {
	a, err := c.document(ctx, i.ManifestPath(i.Tag))
	if err != nil {
		return err
	}
	if a.digest != i.Index.Digest {
		return fmt.Errorf("%s:%s names %s, upstream says %s: %w", i.Repository, i.Tag, a.digest, i.Index.Digest, errWrong)
	}
	for _, path := range []string{i.ManifestPath(i.Manifest.Digest), i.BlobPath(i.Config.Digest)} {
		if _, err := c.document(ctx, path); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for _, l := range i.Layers {
		g.Go(func() error {
			_, err := c.body(ctx, i.BlobPath(l.Digest), l, 0, l.Size, along)
			return err
		})
	}
	return g.Wait()
}

// paths are all that the digests of an image name.
func paths(i origin.Image) []string {
	all := []string{i.ManifestPath(i.Index.Digest), i.ManifestPath(i.Manifest.Digest)}
	return append(all, blobPaths(i)...)
}

// blobPaths are those of its configuration and its layers.
func blobPaths(i origin.Image) []string {
	all := []string{i.BlobPath(i.Config.Digest)}
	for _, l := range i.Layers {
		all = append(all, i.BlobPath(l.Digest))
	}
	return all
}

// healsWithin is how long it may take until what was pulled is on disk, and counted.
const healsWithin = 10 * time.Second

// allHit waits until all that the digests of the images name is answered from the cache.
func (s *shop) allHit(images ...origin.Image) error {
	var wanted []string
	for _, i := range images {
		wanted = append(wanted, paths(i)...)
	}
	ctx, cancel := context.WithTimeout(running, healsWithin)
	defer cancel()
	return testbed.Until(ctx, "all to be kept", func(ctx context.Context) error {
		for len(wanted) > 0 {
			a, err := s.head(ctx, wanted[0])
			if err == nil && !a.hit() {
				err = fmt.Errorf("HEAD %s: verdict %q", wanted[0], a.verdict)
			}
			if err != nil {
				return err
			}
			wanted = slices.Delete(wanted, 0, 1)
		}
		return nil
	})
}

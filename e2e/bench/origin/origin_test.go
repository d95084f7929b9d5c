package origin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// layer is more than two blocks, and ends within one.
const layer = 2<<20 + 12345

func serve(t *testing.T, line Line) (*Server, Image) {
	t.Helper()
	var s Store
	i, err := s.Image("library/test", false, layer, 10)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Serve(&s, line)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o, i
}

func ask(t *testing.T, o *Server, method, path, ranges string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+o.Address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// A client finds its way from the tag to the bytes, and all of them are what they are named by.
func TestAnImageHangsTogether(t *testing.T) {
	o, i := serve(t, Line{})
	resp, body := ask(t, o, "GET", i.ManifestPath(i.Tag), "")
	if got := resp.Header.Get("Docker-Content-Digest"); got != digestOf(body) || got != i.Index.Digest {
		t.Errorf("the tag's digest is %s, its body's %s, want %s", got, digestOf(body), i.Index.Digest)
	}
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil {
		t.Fatal(err)
	}
	resp, body = ask(t, o, "GET", i.ManifestPath(index.Manifests[0].Digest.String()), "")
	if got := resp.Header.Get("Content-Type"); got != ocispec.MediaTypeImageManifest || resp.StatusCode != 200 {
		t.Errorf("the manifest is %d, %s", resp.StatusCode, got)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(body, &manifest); err != nil {
		t.Fatal(err)
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		resp, body := ask(t, o, "GET", i.BlobPath(d.Digest.String()), "")
		if resp.StatusCode != 200 || digestOf(body) != d.Digest.String() || int64(len(body)) != d.Size {
			t.Errorf("blob %v: status %d, %d bytes with digest %s", d, resp.StatusCode, len(body), digestOf(body))
		}
	}
}

func TestAnswers(t *testing.T) {
	o, i := serve(t, Line{})
	blob := i.BlobPath(i.Layers[0].Digest)
	_, all := ask(t, o, "GET", blob, "")
	for _, c := range []struct {
		method, path, ranges string
		status               int
		body                 []byte
	}{
		{"GET", "/v2/", "", 200, []byte("{}")},
		{"HEAD", blob, "", 200, nil},
		{"HEAD", i.ManifestPath(i.ManifestTag), "", 200, nil},
		{"GET", blob, "bytes=0-0", 206, all[:1]},
		{"GET", blob, "bytes=7-2000000", 206, all[7:2000001]},
		{"GET", blob, "bytes=1048570-1048600", 206, all[1048570:1048601]},
		{"GET", blob, "bytes=2097150-", 206, all[2097150:]},
		{"GET", blob, "bytes=-5", 206, all[layer-5:]},
		{"GET", blob, fmt.Sprintf("bytes=5-%d", layer+5), 206, all[5:]},
		{"GET", blob, fmt.Sprintf("bytes=%d-", layer), 416, nil},
		{"GET", blob, "bytes=-0", 416, nil},
		{"GET", blob, "bytes=2-1", 200, all},
		{"GET", blob, "pages=1-2", 200, all},
		{"GET", "/v2/library/other/blobs/" + i.Layers[0].Digest, "", 404, nil},
		{"GET", i.BlobPath(i.Manifest.Digest), "", 404, nil},
		{"GET", i.ManifestPath(i.Layers[0].Digest), "", 404, nil},
		{"GET", i.ManifestPath("2.0"), "", 404, nil},
		{"GET", "/", "", 404, nil},
		{"PUT", i.ManifestPath(i.Tag), "", 405, nil},
	} {
		resp, body := ask(t, o, c.method, c.path, c.ranges)
		if resp.StatusCode != c.status || c.body != nil && !bytes.Equal(body, c.body) {
			t.Errorf("%s %s %s: status %d, %d bytes; want %d, %d",
				c.method, c.path, c.ranges, resp.StatusCode, len(body), c.status, len(c.body))
		}
		if size := resp.ContentLength; c.method == "HEAD" && size != layer && size != int64(len(i.Manifest.Body)) {
			t.Errorf("HEAD %s: length %d", c.path, size)
		}
	}
}

// A tag that has moved names another image; the one before is there by its digests, and they share what they share.
func TestPushMovesTheTag(t *testing.T) {
	o, _ := serve(t, Line{})
	shared, more := o.store.Blob(100), o.store.Blob(200)
	first, err := o.store.Push("library/moved", "1.0", shared)
	if err != nil {
		t.Fatal(err)
	}
	second, err := o.store.Push("library/moved", "1.0", shared)
	if err != nil {
		t.Fatal(err)
	}
	if first.Index.Digest == second.Index.Digest {
		t.Error("two pushes of the same layers made the same image")
	}
	third, err := o.store.Push("library/moved", "1.0", shared, more)
	if err != nil {
		t.Fatal(err)
	}
	if resp, _ := ask(t, o, "GET", third.ManifestPath("1.0"), ""); resp.Header.Get("Docker-Content-Digest") != third.Index.Digest {
		t.Errorf("the tag names %s, want %s", resp.Header.Get("Docker-Content-Digest"), third.Index.Digest)
	}
	for _, path := range []string{
		first.ManifestPath(first.Index.Digest), first.ManifestPath(first.Manifest.Digest), first.BlobPath(first.Config.Digest),
		first.BlobPath(shared.Digest), third.BlobPath(more.Digest),
	} {
		if resp, body := ask(t, o, "GET", path, ""); resp.StatusCode != 200 || path[len(path)-71:] != digestOf(body) {
			t.Errorf("%s: status %d, body of digest %s", path, resp.StatusCode, digestOf(body))
		}
	}
}

func TestCounts(t *testing.T) {
	o, i := serve(t, Line{Total: 1 << 30, PerConnection: 1 << 30})
	ask(t, o, "GET", "/v2/", "")
	before := o.Count()
	ask(t, o, "HEAD", i.ManifestPath(i.Tag), "")
	ask(t, o, "GET", i.ManifestPath(i.Tag), "")
	ask(t, o, "GET", i.BlobPath(i.Config.Digest), "")
	ask(t, o, "HEAD", i.BlobPath(i.Layers[0].Digest), "")
	ask(t, o, "GET", i.BlobPath(i.Layers[0].Digest), "bytes=0-99")
	ask(t, o, "GET", i.BlobPath(i.Layers[0].Digest), "")
	want := Count{
		Heads: [kinds]int64{Manifests: 1, Layers: 1},
		Gets:  [kinds]int64{Manifests: 1, Configs: 1, Layers: 2},
		Bytes: [kinds]int64{Manifests: int64(len(i.Index.Body)), Configs: int64(len(i.Config.Body)), Layers: layer + 100},
	}
	if got := o.Count().Since(before); got != want || got.Requests() != 6 {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// What is far away answers that much later.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &Server{store: &Store{}, line: Line{Away: 40 * time.Millisecond}}
		start := time.Now()
		o.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "HEAD", "/v2/", nil))
		if took := time.Since(start); took != o.line.Away {
			t.Errorf("an answer took %v", took)
		}
	})
}

func TestCheck(t *testing.T) {
	var s Store
	i, err := s.Image("library/test", false, layer, layer)
	if err != nil {
		t.Fatal(err)
	}
	var content bytes.Buffer
	if err := i.Layers[0].Content(&content); err != nil {
		t.Fatal(err)
	}
	all := content.Bytes()
	const from = 1<<20 - 3
	if n, err := i.Layers[0].Check(from).Write(all[from:]); err != nil || n != len(all)-from {
		t.Errorf("what is right: %d, %v", n, err)
	}
	if _, err := i.Layers[1].Check(0).Write(all); err == nil {
		t.Error("another blob's content is taken for right")
	}
	if _, err := i.Layers[0].Check(1).Write(all); err == nil {
		t.Error("more than there is is taken for right")
	}
	all[2<<20]++
	if n, err := i.Layers[0].Check(0).Write(all); err == nil || n > 2<<20 {
		t.Errorf("a wrong byte is taken for right: %d", n)
	}
}

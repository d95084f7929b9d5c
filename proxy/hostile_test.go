package proxy_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
)

func TestHostileIndexTouchesNothing(t *testing.T) {
	u := newRegistry(t)
	m := newMirror(t, u, nil)
	for i, child := range []string{`"size":1`, `"digest":"a:b"`, `"digest":"md9:00"`, `"digest":"sha256:..//index/MANIFEST"`, `"digest":"sha256:../../lock"`} {
		name := fmt.Sprintf("me/mine%d", i)
		body := `{"schemaVersion":2,"manifests":[{` + child + `}]}`
		u.manifest(name, "1", ocispec.MediaTypeImageIndex, body)
		for range 3 {
			m.get(manifestPath(name, "1"), acceptAll()).expect(t, 200, []byte(body))
			m.pass(time.Hour)
		}
	}
	for _, file := range []string{"lock", "index/MANIFEST"} {
		if _, err := os.Stat(filepath.Join(m.opts.DataDir, file)); err != nil {
			t.Error(err)
		}
	}
	if n := m.logs.FilterMessageSnippet("panic").Len(); n > 0 {
		t.Errorf("%d panics", n)
	}
}

func TestBadThingOfOneRepositoryIsNoOutageOfItsRegistry(t *testing.T) {
	u := newRegistry(t)
	layer := random(100)
	u.image("library/good", "1", layer)
	bad := digest.FromString("bad")
	u.fail(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/evil/x/tags/list"):
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"tags":["%s"]}`, strings.Repeat("x", 9<<20))
		case strings.HasSuffix(r.URL.Path, bad.String()):
			http.Error(w, "storage is broken", http.StatusInternalServerError)
		default:
			return false
		}
		return true
	})
	m := newMirror(t, u, nil)
	m.get(manifestPath("good", "1"), acceptAll())
	m.pass(time.Hour)
	for _, path := range []string{"/v2/evil/x/tags/list", blobPath("evil/x", bad)} {
		if a := m.get(path); a.status < 500 {
			t.Errorf("%s: %d", path, a.status)
		}
		m.get(manifestPath("good", "1"), acceptAll()).expectVerdict(t, "fwd=stale; fwd-status=200")
		m.pass(time.Hour)
	}
}

func TestFieldsThatNoRegistryChecksProveNothing(t *testing.T) {
	u := newRegistry(t)
	secret := random(5000)
	d := u.blob(secret, "corp/secret")
	m := newMirror(t, u, nil)
	m.get(blobPath("corp/secret", d)).expect(t, 200, secret)
	m.settled()
	for i, body := range []string{
		`{"layers":[],"blobs":[%s]}`, `{"layers":[],"manifests":[%s]}`, `{"LAYERS":[%s]}`, `{"subject":%s}`,
	} {
		name := fmt.Sprintf("me/mine%d", i)
		u.manifest(name, "1", ocispec.MediaTypeImageManifest, fmt.Sprintf(body, descriptor("x/y", d, len(secret))))
		m.get(manifestPath(name, "1"), acceptAll())
		if a := m.get(blobPath(name, d)); a.status != 404 {
			t.Errorf("%s: %d", body, a.status)
		}
	}
}

func TestSizeThatUpstreamStatesOnlyInTheManifest(t *testing.T) {
	u := newRegistry(t)
	layer := random(5000)
	d := digest.FromBytes(layer)
	u.image("library/a", "1", layer)
	u.fail(func(w http.ResponseWriter, r *http.Request) bool { // no Content-Length
		if r.Method != "GET" || !strings.HasSuffix(r.URL.Path, d.String()) {
			return false
		}
		w.Write(layer[:100])
		http.NewResponseController(w).Flush()
		w.Write(layer[100:])
		return true
	})
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll())
	for range 2 {
		m.get(blobPath("a", d)).expect(t, 200, layer)
		m.settled()
		if err := os.RemoveAll(filepath.Join(m.opts.DataDir, "blobs", "sha256", d.Encoded()[:2])); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTruncatedBlobOnDiskHeals(t *testing.T) {
	u := newRegistry(t)
	layer := random(50_000)
	d := digest.FromBytes(layer)
	u.image("library/a", "1", layer)
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll())
	m.get(blobPath("a", d)).expect(t, 200, layer)
	m.settled()
	if err := os.Truncate(filepath.Join(m.opts.DataDir, "blobs", "sha256", d.Encoded()[:2], d.Encoded()), 1000); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		m.get(blobPath("a", d)).expect(t, 200, layer)
		m.settled()
	}
}

func TestSmallBlobThatRotsOnDiskHeals(t *testing.T) {
	u := newRegistry(t)
	layer := random(50_000)
	d := u.blob(layer, "library/a")
	m := newMirror(t, u, nil)
	m.get(blobPath("a", d)).expect(t, 200, layer)
	m.settled()
	m.damage(d) // its size stays
	for _, verdict := range []string{"fwd=miss", "hit"} {
		a := m.get(blobPath("a", d))
		a.expect(t, 200, layer)
		a.expectVerdict(t, verdict)
		m.settled()
	}
	m.damage(d)
	for _, part := range []string{"bytes=0-9", "bytes=49990-"} { // parts of what is in memory
		if a := m.get(blobPath("a", d), "Range: "+part); a.status != 206 || len(a.body) != 10 || !bytes.Contains(layer, a.body) {
			t.Errorf("%s: %d, %d bytes", part, a.status, len(a.body))
		}
	}
}

func TestWhatCanNeverFitEvictsNothing(t *testing.T) {
	u := newRegistry(t)
	small, large := random(30_000), random(4_000_000)
	ds, dl := u.blob(small, "library/a"), u.blob(large, "library/a")
	m := newMirror(t, u, nil, withMaxSize(2<<20))
	m.get(blobPath("a", ds)).expect(t, 200, small)
	m.settled()
	m.get(blobPath("a", dl)).expect(t, 200, large)
	u.fail(func(w http.ResponseWriter, r *http.Request) bool { // nonsense
		w.Header().Set("Content-Length", "9223372036854775807")
		return true
	})
	m.get(blobPath("a", digest.FromString("nonsense")))
	u.fail(nil)
	a := m.get(blobPath("a", ds))
	a.expect(t, 200, small)
	a.expectVerdict(t, "hit")
}

func TestContentThatCannotBeKeptCostsOneGet(t *testing.T) {
	u := newRegistry(t)
	d := u.image("library/a", "1", random(10))
	m := newMirror(t, u, nil, func(o *cache.Options) { o.MaxSize = 1 })
	a := m.get(manifestPath("a", "1"), acceptAll())
	if a.status != 200 || a.header.Get("Docker-Content-Digest") != d.String() {
		t.Errorf("%d", a.status)
	}
	if got := a.header.Get("Cache-Status"); strings.Contains(got, "stored") {
		t.Errorf("Cache-Status %s", got)
	}
	if n := u.count("GET "); n != 1 {
		t.Errorf("%q", u.log)
	}
}

func TestManifestBombIsRefused(t *testing.T) {
	u := newRegistry(t)
	u.manifest("me/bomb", "1", ocispec.MediaTypeImageIndex, `{"manifests":[`+strings.Repeat("{},", 2_000_000)+`{}]}`)
	m := newMirror(t, u, nil)
	m.get(manifestPath("me/bomb", "1"), acceptAll()).expectError(t, 502, "UNAVAILABLE")
}

// What is cached of an index whose images are all the same is looked at once.
func TestIndexOfManyEqualImagesIsCheap(t *testing.T) {
	u := newRegistry(t)
	image := u.manifest("me/mine", "", ocispec.MediaTypeImageManifest,
		`{"layers":[`+descriptor("x/y", digest.FromString("missing"), 1)+`],"annotations":{"x":"`+strings.Repeat("x", 1<<20)+`"}}`)
	one := descriptor(ocispec.MediaTypeImageManifest, image, 1)
	body := `{"manifests":[` + strings.Repeat(one+",", 5000) + one + `]}`
	u.manifest("me/mine", "1", ocispec.MediaTypeImageIndex, body)
	m := newMirror(t, u, nil)
	m.get(digestPath("me/mine", image), acceptAll())
	for range 20 { // of 5 GB each, if it were not
		m.get(manifestPath("me/mine", "1"), acceptAll()).expect(t, 200, bytes.Clone([]byte(body)))
	}
}

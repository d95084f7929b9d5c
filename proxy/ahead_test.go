package proxy_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
)

func withReadAhead(o *cache.Options) { o.ReadAhead = cache.ReadConfig }

// dockerd and containerd ask HEAD by tag, and then GET by digest what that named, step by step.
func TestPullThatIsReadAhead(t *testing.T) {
	u := newRegistry(t)
	image := u.image("library/a", "", random(1000))
	body := `{"manifests":[{"mediaType":"` + ocispec.MediaTypeImageManifest + `","digest":"` + image.String() +
		`","size":400,"platform":{"os":"linux","architecture":"` + runtime.GOARCH + `"}}]}`
	index := u.manifest("library/a", "1", ocispec.MediaTypeImageIndex, body)
	config := []byte(`{"image":"library/a:"}`)
	m := newMirror(t, u, nil, withReadAhead)

	head := m.ask("HEAD", manifestPath("a", "1"), acceptAll())
	head.expect(t, 200, nil)
	head.expectVerdict(t, "fwd=miss; stored; ttl=")
	a := m.get(digestPath("a", index), acceptAll())
	a.expect(t, 200, []byte(body))
	a.expectVerdict(t, "hit")
	// The configuration comes without being asked for.
	counted := func(kind string) string {
		return `entrepot_read_ahead_total{kind="` + kind + `",outcome="kept",registry="docker.io"} 1` + "\n"
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if text := m.exposition(); strings.Contains(text, counted("manifest")) && strings.Contains(text, counted("blob")) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing is read ahead: %q", u.log)
		}
		<-time.After(time.Millisecond)
	}
	m.get(digestPath("a", image), acceptAll()).expectVerdict(t, "hit")
	a = m.get(blobPath("a", digest.FromBytes(config)))
	a.expect(t, 200, config)
	a.expectVerdict(t, "hit")
	want := []string{"GET /v2/library/a/manifests/1", "GET " + strings.Replace(digestPath("a", image), "/a/", "/library/a/", 1),
		"GET " + strings.Replace(blobPath("a", digest.FromBytes(config)), "/a/", "/library/a/", 1)}
	if got := strings.Join(u.log, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("upstream was asked\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

package e2e

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/e2e/testbed"
)

func TestAnswersCarryTheirVerdict(t *testing.T) {
	m := startMirror(t, open, nil)

	first := rawPull(t, m, images.index)
	for _, a := range first.Answers {
		// Reading ahead may have brought the small things; the tag and the layers were surely not there.
		sure := strings.HasSuffix(a.Path, "/"+images.index.Tag) || a.Bytes > 100<<10
		if sure && !strings.Contains(a.Verdict(), "fwd=miss") {
			t.Errorf("first pull, %s: verdict %q, want fwd=miss", a.Path, a.Verdict())
		}
	}
	if err := m.entrepot.Kept(running, first); err != nil {
		t.Fatal(err)
	}
	for _, a := range rawPull(t, m, images.index).Answers {
		if a.Verdict() != "hit" && !strings.HasPrefix(a.Verdict(), "hit;") {
			t.Errorf("second pull, %s: verdict %q, want hit", a.Path, a.Verdict())
		}
		if w := a.Header.Get("Warning"); w != "" {
			t.Errorf("second pull, %s: a fresh answer warns: %q", a.Path, w)
		}
	}
}

func TestStaleAnswersWarnAndTellTheirAge(t *testing.T) {
	m := startMirror(t, open, func(upstream string) string {
		return configuration(upstream) + "cache: {tag_ttl: 1ms}\n"
	})
	rawPull(t, m, images.index)
	m.mark(t)
	if err := m.gate.Close(); err != nil {
		t.Fatal(err)
	}

	for _, try := range []string{"first stale pull", "second stale pull"} {
		p := rawPull(t, m, images.index)
		tag := p.Answers[0]
		if !strings.HasPrefix(tag.Verdict(), "hit") || !strings.Contains(tag.Verdict(), "ttl=-") {
			t.Errorf("%s: verdict of the tag is %q, want a hit with a negative ttl", try, tag.Verdict())
		}
		if w := tag.Header.Get("Warning"); !strings.HasPrefix(w, "299 ") {
			t.Errorf("%s: Warning of the tag is %q, want 299", try, w)
		}
		if age, err := strconv.Atoi(tag.Header.Get("Age")); err != nil || age < 0 {
			t.Errorf("%s: Age of the tag is %q, want seconds", try, tag.Header.Get("Age"))
		}
		for _, a := range p.Answers[1:] {
			if w := a.Header.Get("Warning"); w != "" {
				t.Errorf("%s, %s: what is named by digest can't be stale, but warns: %q", try, a.Path, w)
			}
		}
	}
}

// An upstream that comes back is asked again: being down is not remembered for longer than it lasts.
func TestUpstreamThatReturnsIsUsed(t *testing.T) {
	m := startMirror(t, open, nil)
	if err := m.gate.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := testbed.Pull(running, m.entrepot.URL(), images.index.Repository, images.index.Tag, native); err == nil {
		t.Fatal("pulled an image that is not in the cache while upstream is down")
	}
	if err := m.gate.Open(); err != nil {
		t.Fatal(err)
	}
	err := testbed.Until(running, "the upstream to be used again", func(ctx context.Context) error {
		_, err := testbed.Pull(ctx, m.entrepot.URL(), images.index.Repository, images.index.Tag, native)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMetricsAreServed(t *testing.T) {
	m := startMirror(t, open, nil)
	rawPull(t, m, images.index)
	resp, err := http.Get("http://" + m.entrepot.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "\nentrepot_") {
		t.Errorf("GET /metrics: %s, and no metric of entrepot's in\n%.2000s", resp.Status, body)
	}
}

// rawPull pulls without a container client, to see the answers themselves.
func rawPull(t *testing.T, m mirror, i testbed.Image) testbed.Pulled {
	t.Helper()
	p, err := testbed.Pull(running, m.entrepot.URL(), i.Repository, i.Tag, native)
	if err != nil {
		t.Fatal(err)
	}
	if p.Digest != i.Digest {
		t.Errorf("pulled %s, pushed was %s", p.Digest, i.Digest)
	}
	return p
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
)

// dataDir makes a data directory that holds these blobs, put there as from a backup, and returns it with their digests.
func dataDir(t *testing.T, blobs ...string) (dir string, all []digest.Digest) {
	t.Helper()
	dir = t.TempDir()
	for _, content := range blobs {
		d := digest.FromString(content)
		path := filepath.Join(dir, "blobs", "sha256", d.Encoded()[:2])
		if err := os.MkdirAll(path, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, d.Encoded()), []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return dir, all
}

// silent is an address where nothing listens.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestStatsAsksTheMirrorThatRuns(t *testing.T) {
	r := start(t, "http://127.0.0.1:1", nil)
	admin := strings.TrimPrefix(r.admin, "http://")
	for _, args := range [][]string{{"--admin", r.admin}, {"--admin", admin + "/"}, {}} {
		out, err := command([]string{"ENTREPOT_ADMIN_LISTEN=" + admin}, append([]string{"cache", "stats"}, args...)...)
		if err != nil || !strings.Contains(out, "from          "+r.admin+"\n") || !strings.Contains(out, "content       0 blobs and manifests\n") ||
			!strings.Contains(out, "state         fine\n") {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	out, err := command(nil, "cache", "stats", "--json", "--admin", r.admin)
	var s cache.Stats
	if err != nil || json.Unmarshal([]byte(out), &s) != nil || !strings.Contains(out, `"blobs": 0`) {
		t.Errorf("%v\n%s", err, out)
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestStatsReadsTheDirectoryWhereNoMirrorRuns(t *testing.T) {
	dir, _ := dataDir(t, "one", "two")
	environ := []string{"ENTREPOT_DATA_DIR=" + dir, "ENTREPOT_ADMIN_LISTEN=" + silent(t), "ENTREPOT_CACHE_MAX_SIZE=1GiB"}
	out, err := command(environ, "cache", "stats")
	if err != nil || !strings.Contains(out, dir+", which no process has open") || !strings.Contains(out, "content       2 blobs and manifests\n") ||
		!strings.Contains(out, " of 1.0 GiB  [") || strings.Contains(out, "since the start") || strings.Contains(out, "fine") {
		t.Errorf("%v\n%s", err, out)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("looking has made something: %v, %v", entries, err)
	}
	if _, err := command(nil, "cache", "stats", "--data-dir", filepath.Join(dir, "none"), "--config", ""); err == nil {
		t.Error("a directory that is not there has figures")
	}
}

func TestStatsSaysWhereToAskWhenTheDirectoryIsInUse(t *testing.T) {
	var dir string
	r := start(t, "http://127.0.0.1:1", func(c *config.Config) { dir = c.DataDir })
	for admin, want := range map[string]string{silent(t): "--admin URL", "off": "admin_listen is off"} {
		_, err := command([]string{"ENTREPOT_ADMIN_LISTEN=" + admin}, "cache", "stats", "--data-dir", dir)
		if err == nil || !strings.Contains(err.Error(), "in use by") || !strings.Contains(err.Error(), want) {
			t.Errorf("admin_listen %s: %v", admin, err)
		}
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestStatsOfSomethingElseIsAnError(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<html>"))
	}))
	defer s.Close()
	if _, err := command(nil, "cache", "stats", "--admin", s.URL); err == nil || !strings.Contains(err.Error(), "text/html") {
		t.Error(err)
	}
	if _, err := askStats(context.Background(), "http://"+silent(t)); err == nil {
		t.Error("nobody has answered")
	}
}

func TestStatsForPeople(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	err := stats{from: "http://127.0.0.1:5001", live: true, Stats: cache.Stats{
		Bytes: 50 << 30, Limit: 200 << 30, Free: 3 << 40, Content: 12345, Pinned: 17, Parked: 3 << 20, Index: 23 << 20, Fills: 2, Readers: 1017,
		Evicted: 57, EvictedBytes: 3 << 30, Scrubbed: 8211, ScrubbedBytes: 10 << 30, Damaged: 1, Oldest: now.Add(-5 * 24 * time.Hour),
		Degraded: []string{"no room left on the file system", "the index is in memory only"},
	}}.print(&b, now)
	want := `from          http://127.0.0.1:5001
on disk       50 GiB of 200 GiB  [#####...............] 25%
free          3.0 TiB on the file system
content       12,345 blobs and manifests, 17 of them pinned
index         23 MiB
parked        3.0 MiB
transfers     2 under way, followed by 1,017 clients
evicted       57 (3.0 GiB) since the start
read again    8,211 (10 GiB) since the start; 1 damaged
verified      all of it, the oldest 5 days ago
state         degraded: no room left on the file system
state         degraded: the index is in memory only
`
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s", err, &b)
	}
}

func TestAdminIsAskedOnTheSameMachine(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:5001": "http://127.0.0.1:5001", ":5001": "http://127.0.0.1:5001", "0.0.0.0:5001": "http://127.0.0.1:5001",
		"[::]:5001": "http://[::1]:5001", "mirror.example:5001": "http://mirror.example:5001", "": "",
	} {
		if got := adminURL(listen); got != want {
			t.Errorf("%s: %s", listen, got)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
)

func TestVerifyChecksThenMends(t *testing.T) {
	dir, all := dataDir(t, "one", "two", "three")
	wrong := filepath.Join(dir, "blobs", "sha256", all[1].Encoded()[:2], all[1].Encoded())
	if err := os.WriteFile(wrong, []byte("TWO"), 0o640); err != nil {
		t.Fatal(err)
	}
	out, err := command(nil, "verify", "--check", "--data-dir", dir)
	if err == nil || !strings.Contains(err.Error(), "without --check") || !strings.Contains(out, all[1].String()+"  content, 3 B: left as it is") {
		t.Errorf("check: %v\n%s", err, out)
	}
	out, err = command(nil, "verify", "--check", "--json", "--data-dir", dir)
	var r cache.VerifyReport
	if err == nil || json.Unmarshal([]byte(out), &r) != nil || len(r.Wrong) != 1 || r.Wrong[0].Digest != all[1] || r.Right != 2 || r.Adopted != 2 {
		t.Errorf("check as JSON: %v\n%s", err, out)
	}
	out, err = command(nil, "verify", "--data-dir", dir)
	if err != nil || !strings.Contains(out, all[1].String()+"  content, 3 B: removed") || !strings.Contains(out, "right         2, of which 2 were not known to be\n") {
		t.Errorf("mend: %v\n%s", err, out)
	}
	if _, err := os.Stat(wrong); err == nil {
		t.Error("what is wrong is still there")
	}
	out, err = command(nil, "verify", "--check", "--data-dir", dir)
	if err != nil || !strings.Contains(out, "right         2, of which 0 were not known to be\n") || !strings.Contains(out, "wrong         0\n") {
		t.Errorf("check again: %v\n%s", err, out)
	}
}

func TestVerifyMakesNothingWhereNothingIs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	for _, args := range [][]string{{}, {"--check"}} {
		if _, err := command(nil, append([]string{"verify", "--data-dir", dir}, args...)...); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v: %v", args, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%v has made a data directory", args)
		}
	}
}

func TestVerifyThatIsInterruptedSaysHowFarItCame(t *testing.T) {
	dir, _ := dataDir(t, "one")
	c := config.Default()
	c.DataDir = dir
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	err := verify(ctx, c, false, false, &out, io.Discard, zap.NewNop())
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("%v\n%s", err, &out)
	}
}

func TestRootWorksInItsOwnDirectoriesOnly(t *testing.T) {
	for _, tt := range []struct {
		owner, user int
		want        bool
	}{{0, 0, true}, {65532, 0, false}, {65532, 65532, true}, {65532, 1000, true}} {
		if got := ownedBy(tt.owner, tt.user); got != tt.want {
			t.Errorf("%+v", tt)
		}
	}
	if err := owned(t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestProgressIsALineNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		p := newProgress(&b)
		p.at(1<<20, 4<<20)
		if b.Len() > 0 {
			t.Errorf("at once: %s", &b)
		}
		<-time.After(lineEvery)
		p.at(2<<20, 4<<20)
		p.at(3<<20, 4<<20)
		p.end()
		if want := "verified 2.0 MiB of 4.0 MiB [##########..........] 50%\n"; b.String() != want {
			t.Errorf("after a while: %s", &b)
		}
	})
}

func TestBarIsDrawnAndCleared(t *testing.T) {
	var w bytes.Buffer
	b := &bar{w: &w}
	b.end() // before it has begun
	b.at(2<<20, 4<<20)
	b.end()
	if drawn := w.String(); !strings.Contains(drawn, "verifying") || !strings.Contains(drawn, "50%") {
		t.Errorf("%q", drawn)
	}
}

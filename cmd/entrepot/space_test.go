package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
)

func TestSharesAreOfTheFileSystem(t *testing.T) {
	dir := t.TempDir()
	capacity, err := cache.Capacity(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.DataDir, c.Cache.MaxSize, c.Cache.MinFree = dir, config.Space{Percent: 50}, config.Space{Bytes: 1 << 30}
	maxSize, minFree, err := space(c, zap.NewNop())
	if err != nil || maxSize != int64(float64(capacity)*0.5) || minFree != 1<<30 {
		t.Errorf("%d of %d, %d free, %v", maxSize, capacity, minFree, err)
	}

	core, logs := observer.New(zapcore.DebugLevel)
	c.Cache.MinFree = config.Space{Bytes: capacity}
	if _, _, err := space(c, zap.New(core)); err != nil || logs.Len() != 1 || !strings.Contains(logs.All()[0].Message, "min_free") {
		t.Errorf("%v, %v", err, logs.All())
	}

	c.Cache.MaxSize = config.Space{Percent: 1e-9}
	if _, _, err := space(c, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "cache.max_size: 0.000000001%") || !strings.Contains(err.Error(), "16MiB") {
		t.Errorf("a share of next to nothing: %v", err)
	}
}

func TestUnusableDirectoryIsAnErrorWithARemedy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{file: "move that away", filepath.Join(file, "data"): "part of the path is a file"} {
		c := config.Default()
		c.Listen, c.AdminListen, c.DataDir = "127.0.0.1:0", "", dir
		err := serve(t.Context(), newSettings(c, nil, zap.NewNop()), nil, zap.NewNop())
		for _, part := range []string{dir, want, "--data-dir"} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("no %q in: %v", part, err)
			}
		}
	}
	if err := unusable(os.ErrPermission); !strings.Contains(err.Error(), "let user") {
		t.Error(err)
	}
}

func TestPinnedIsWhatAnyPatternMeans(t *testing.T) {
	if pinned(nil) != nil {
		t.Error("nothing is pinned, and something asked")
	}
	is := pinned([]config.Pattern{"docker.io/library/alpine:3.*", "ghcr.io/owner/**"})
	for image, want := range map[[3]string]bool{
		{"docker.io", "library/alpine", "3.20"}: true,
		{"docker.io", "library/alpine", "edge"}: false,
		{"ghcr.io", "owner/a/b", "v1"}:          true,
		{"quay.io", "owner/a", "v1"}:            false,
	} {
		if got := is(cache.Repository{Registry: image[0], Name: image[1]}, image[2]); got != want {
			t.Errorf("%v: %v", image, got)
		}
	}
}

func TestScrubRateAsTheCacheTakesIt(t *testing.T) {
	for rate, want := range map[config.ScrubRate]int64{config.ScrubWeekly: 0, config.ScrubOff: -1, 20 << 20: 20 << 20} {
		if got := scrubRate(rate); got != want {
			t.Errorf("%s: %d", rate, got)
		}
	}
}

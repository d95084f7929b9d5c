package cache

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache/index"
)

// TestAnIndexInTheDataDirectoryCounts: wherever in it that lies.
func TestAnIndexInTheDataDirectoryCounts(t *testing.T) {
	for _, name := range []string{"index", "index/", "records", "relative"} {
		dir := t.TempDir()
		opts := Options{DataDir: dir, IndexDir: dir + "/" + name, MaxSize: 64 << 20}
		if name == "relative" {
			t.Chdir(dir)
			opts.DataDir = "."
		}
		c, err := open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2000 {
			if err := c.index.SetTag(testRepo, fmt.Sprint(i), index.Tag{Manifest: ocispec.Descriptor{Digest: digest.FromString("")}}); err != nil {
				t.Fatal(err)
			}
		}
		before := c.keeper.Stats().Total - c.keeper.Stats().Bytes
		if err := c.index.Settle(); err != nil {
			t.Error(err)
		}
		after := c.keeper.Stats().Total - c.keeper.Stats().Bytes
		if c.index.Stats().Bytes == 0 || after < c.index.Stats().Bytes {
			t.Errorf("%s: the index has %d bytes, and %d (%d before) are counted beside content", name, c.index.Stats().Bytes, after, before)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

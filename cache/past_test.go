package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/fill"
	"github.com/entrepot/entrepot/upstream"
)

// blobs is an upstream that has one blob and nothing else.
type blobs struct {
	Upstream // none: anything but a blob is not asked for
	content  []byte

	mu         sync.Mutex
	opened     []int64
	distrusted []string
}

func (u *blobs) StatBlob(context.Context, string, digest.Digest) (int64, error) {
	return int64(len(u.content)), nil
}

func (u *blobs) OpenBlob(_ context.Context, req upstream.BlobRequest) (*upstream.BlobStream, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.opened = append(u.opened, req.Offset)
	return &upstream.BlobStream{ReadCloser: io.NopCloser(bytes.NewReader(u.content[req.Offset:])), Size: int64(len(u.content)),
		Endpoint: "here"}, nil
}

func (u *blobs) Down() bool      { return false }
func (u *blobs) BlobsDown() bool { return false }

func (u *blobs) Distrust(endpoint string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.distrusted = append(u.distrusted, endpoint)
}

// filling is a file on a disk that is full from some byte on.
type filling struct {
	fill.File
	room int64
}

func (f filling) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.room {
		return 0, errors.New("no space left on device")
	}
	return f.File.WriteAt(p, off)
}

// onFullDisk opens a cache whose disk is full from some byte of each blob on.
func onFullDisk(t *testing.T, up Upstream, room int64) *Cache {
	c, err := Open(t.Context(), Options{DataDir: t.TempDir(), Upstreams: map[string]Upstream{"docker.io": up}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	c.fills.Close()
	c.fills = fill.New(fill.Options{Fits: c.keeper.Fits, Kept: c.keeper.Has, Parked: c.parked, Final: isAnswer, Throttled: isThrottled, Done: c.fillDone,
		Create: func(d digest.Digest, size, first int64) (fill.File, error) {
			f, err := c.create(d, size, first)
			return filling{f, room}, err
		}})
	return c
}

func TestReadersShareOneTransferWhenTheDiskFillsUp(t *testing.T) {
	content := make([]byte, 16<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	d := digest.FromBytes(content)
	up := &blobs{content: content}
	c := onFullDisk(t, up, 9<<20)
	repo := Repository{Registry: "docker.io", Name: "library/a"}
	var readers []*Blob
	for range 4 {
		b, err := c.Blob(t.Context(), repo, d, Whole)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		readers = append(readers, b)
	}
	// In step, as clients on one line are.
	got := make([]byte, 64<<10)
	for pos := 0; pos < len(content); pos += len(got) {
		for _, b := range readers {
			if _, err := io.ReadFull(b.Content, got); err != nil || !bytes.Equal(got, content[pos:pos+len(got)]) {
				t.Fatalf("at %d: %v", pos, err)
			}
		}
	}
	if len(up.opened) != 2 || up.opened[1] < 8<<20 {
		t.Errorf("upstream was asked at %v, want once, and once where the disk was full", up.opened)
	}
}

func TestLastByteIsHeldBackWhenTheDiskFillsUp(t *testing.T) {
	content := make([]byte, 4<<20)
	up := &blobs{content: content}
	c := onFullDisk(t, up, 2<<20)
	d := digest.FromString("something else")
	b, err := c.Blob(t.Context(), Repository{Registry: "docker.io", Name: "library/a"}, d, Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, err := io.ReadAll(b.Content); err == nil || len(got) >= len(content) {
		t.Errorf("%d bytes of wrong content, %v", len(got), err)
	}
	if len(up.distrusted) > 0 {
		t.Errorf("told on: %v; what lay on the disk may have been wrong", up.distrusted)
	}
}

package origin

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
)

// Blob is content that is computed where it is needed: one block of noise over and over, with the blob's number and the
// block's at the head of each. It does not compress, no two blobs have a block in common, and none takes memory.
type Blob struct {
	Digest string
	Size   int64
	number uint64
}

const (
	blockSize = 1 << 20
	headSize  = 16
)

// noise is the block. It has no head of its own, and so no blob is the same as another.
var noise = sync.OnceValue(func() []byte {
	b := make([]byte, blockSize)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
})

// newBlob makes the blob of a number. Its digest takes half a second a gigabyte.
func newBlob(number uint64, size int64) Blob {
	b := Blob{Size: size, number: number}
	hash := sha256.New()
	b.each(0, size, func(p []byte) error {
		hash.Write(p)
		return nil
	})
	b.Digest = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	return b
}

// newEndless makes a blob that is too large to be hashed, or read, by anybody: its digest is not that of its content.
func newEndless(number uint64, size int64) Blob {
	name := sha256.Sum256(fmt.Appendf(nil, "endless %d", number))
	return Blob{Digest: "sha256:" + hex.EncodeToString(name[:]), Size: size, number: number}
}

// each hands the content from one offset to another to f, piece by piece, until f fails. The pieces are not f's to keep.
func (b Blob) each(from, to int64, f func([]byte) error) error {
	var head [headSize]byte
	binary.BigEndian.PutUint64(head[:], b.number)
	for from < to {
		within := from % blockSize
		binary.BigEndian.PutUint64(head[8:], uint64(from/blockSize))
		piece := noise()[within:]
		if within < headSize {
			piece = head[within:]
		}
		piece = piece[:min(int64(len(piece)), to-from)]
		if err := f(piece); err != nil {
			return err
		}
		from += int64(len(piece))
	}
	return nil
}

// Check is for a client to compare what it gets with what is right: it costs a tenth of a digest, and misses nothing.
// It begins at the offset.
func (b Blob) Check(offset int64) *Check { return &Check{blob: b, at: offset} }

// Check is an io.Writer that refuses what is not the blob's content.
type Check struct {
	blob Blob
	at   int64
}

func (c *Check) Write(p []byte) (int, error) {
	n := 0
	if c.at+int64(len(p)) > c.blob.Size {
		return 0, fmt.Errorf("%s: there is more than its %d bytes", c.blob.Digest, c.blob.Size)
	}
	err := c.blob.each(c.at, c.at+int64(len(p)), func(want []byte) error {
		if !bytes.Equal(p[n:n+len(want)], want) {
			return fmt.Errorf("%s: wrong content at %d", c.blob.Digest, c.at+int64(n))
		}
		n += len(want)
		return nil
	})
	c.at += int64(n)
	return n, err
}

// Content writes all of the blob.
func (b Blob) Content(w io.Writer) error {
	return b.each(0, b.Size, func(p []byte) error {
		_, err := w.Write(p)
		return err
	})
}

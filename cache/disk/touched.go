package disk

import (
	"io/fs"
	"slices"
	"syscall"
)

const (
	// runs is how many runs of writes to a file are followed at once: more than there are transfers side by side.
	runs = 16

	// piecesInBlock is how many pieces of a file one block says the places of. On ext4 it is 340, or half as many where these
	// come in no order, and a few blocks say where those blocks are.
	piecesInBlock = 128
)

// touched is what the writes to a sparse file have taken of the file system, at most, for a file system that gives each block
// that was written to. Which blocks these are is not known: of one that is written to twice, other than by writes that go on
// where another ended, each counts. The zero value is a file without blocks.
type touched struct {
	data   int64       // in bytes, whole blocks
	pieces int64       // runs of writes of which each goes on where the one before ended
	ends   [runs]int64 // where the latest of them end
	oldest int         // of these
}

// write returns what is touched after n bytes more were written at off. The block in which a run goes on is counted already.
func (t touched) write(off, n int64) touched {
	from, i := whole(off), slices.Index(t.ends[:], off)
	if i >= 0 {
		from = whole(off + block - 1)
	} else {
		i, t.oldest = t.oldest, (t.oldest+1)%runs
		t.pieces++
	}
	t.data += whole(off+n+block-1) - from
	t.ends[i] = off + n
	return t
}

// blocks is the room that this takes in a file of that size: at most as much as all of it.
func (t touched) blocks(size int64) int64 {
	if t.data == 0 {
		return 0
	}
	return min(blocks(size), t.data+(t.data/(128<<20)+t.pieces/piecesInBlock+1)*block)
}

// roomFor is the room for n bytes in one piece, wherever they are, of content of that size.
func roomFor(n, size int64) int64 {
	if n <= 0 {
		return 0
	}
	return touched{data: whole(n+block-1) + block}.blocks(size)
}

// allocated is how many bytes of the file system a file has.
func allocated(info fs.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }

// Package watched reads files again when they change. Secrets and certificates are replaced under way: by a rename, by
// writing into the file, or by turning the symbolic link that leads to it, which no notification of the kernel tells
// reliably. So each read looks at what stands behind the path now, at the price of one system call.
package watched

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// settles is how old a file must have been when it was read for an equal time of change to prove that it is the same. The
// clocks of file systems tick in milliseconds, those of some network file systems in seconds.
const settles = 2 * time.Second

// File is a file whose content is remembered for as long as it does not change. Its methods may be called from many
// goroutines.
type File struct {
	path  string
	limit int64

	mu sync.Mutex
	// guards following
	seen    os.FileInfo // nil: what is remembered proves nothing
	content []byte
	err     error
	version int
}

// New returns the file at a path. It does not read it. One of more than limit bytes is an error.
func New(path string, limit int64) *File { return &File{path: path, limit: limit} }

// Path returns the path.
func (f *File) Path() string { return f.path }

// Read returns the content, which nobody may change, or why there is none. The version differs from that of the call before
// exactly if the content does, or if there was one and now is none, or the other way about. It is never 0.
func (f *File) Read() (content []byte, version int, err error) {
	info, err := os.Stat(f.path) // of what the path leads to
	f.mu.Lock()
	if err == nil && f.seen != nil && same(info, f.seen) {
		defer f.mu.Unlock()
		return f.content, f.version, f.err
	}
	f.mu.Unlock()
	if err == nil {
		content, info, err = f.read(info)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// Two that read at a time may arrive here in the wrong order. What is remembered then is older than the file, as its
	// stamp tells the next one.
	if f.version == 0 || !bytes.Equal(content, f.content) || (err == nil) != (f.err == nil) {
		f.version++
	}
	f.content, f.err, f.seen = content, err, nil
	if err == nil && time.Since(info.ModTime()) > settles {
		f.seen = info
	}
	return f.content, f.version, f.err
}

// same reports whether two looks have seen the same file, unchanged in between.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// read reads the file, and its stamp as it was before that.
func (f *File) read(info os.FileInfo) ([]byte, os.FileInfo, error) {
	// A pipe or a device could block or never end, and can't be read again.
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", f.path)
	}
	file, err := os.Open(f.path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return nil, nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, f.limit+1))
	switch {
	case err != nil:
		return nil, nil, err
	case int64(len(content)) > f.limit:
		return nil, nil, fmt.Errorf("%s is larger than %d bytes", f.path, f.limit)
	}
	return content, info, nil
}

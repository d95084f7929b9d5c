package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
)

// piece is what is read of upstream at a time: what fits into the processor's cache.
const piece = 256 << 10

// fill answers from upstream, and does with each byte what a cache that checks can't do without: read it, hash it, write it to
// a file, and send it from there. It shares nothing, keeps nothing, and finds no error in anything.
type fill struct {
	upstream, root string
	client         *http.Client
	files          atomic.Int64
}

func newFill(upstream, root string) *fill {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	return &fill{upstream: "http://" + upstream, root: root, client: &http.Client{Transport: transport}}
}

func (f *fill) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if err := f.answer(w, req); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", req.URL.Path, err)
		panic(http.ErrAbortHandler)
	}
}

func (f *fill) answer(w http.ResponseWriter, req *http.Request) error {
	asked, err := http.NewRequestWithContext(req.Context(), req.Method, f.upstream+req.URL.Path, nil)
	if err != nil {
		return err
	}
	for _, name := range []string{"Accept", "Range"} {
		if v := req.Header.Get(name); v != "" {
			asked.Header.Set(name, v)
		}
	}
	resp, err := f.client.Do(asked)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Range"} {
		if v := resp.Header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	w.WriteHeader(resp.StatusCode)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	return f.land(w, resp.Body)
}

// land passes a body on by way of a file.
func (f *fill) land(w io.Writer, body io.Reader) error {
	name := filepath.Join(f.root, fmt.Sprint(f.files.Add(1)))
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	defer file.Close()
	sent, err := os.Open(name)
	if err != nil {
		return err
	}
	defer sent.Close()
	hash, buffer := sha256.New(), make([]byte, piece)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			hash.Write(buffer[:n])
			if _, err := file.Write(buffer[:n]); err != nil {
				return err
			}
			if _, err := io.CopyN(w, sent, int64(n)); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

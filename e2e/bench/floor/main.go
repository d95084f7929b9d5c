// Command floor answers pulls of what lies in a directory with the least that net/http allows: what Go itself costs.
// Manifests are in memory, with their types and digests; blobs are files. Nothing is checked, logged or counted.
package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: floor <address> <directory> <media type of manifests>")
		os.Exit(2)
	}
	manifests, err := load(os.Args[2])
	if err == nil {
		handler := floor{root: os.Args[2], mediaType: os.Args[3], manifests: manifests}
		err = (&http.Server{Addr: os.Args[1], Handler: handler}).ListenAndServe()
	}
	fmt.Fprintln(os.Stderr, "floor:", err)
	os.Exit(1)
}

type floor struct {
	root, mediaType string
	manifests       map[string][]byte // by path
}

// load reads all manifests.
func load(root string) (map[string][]byte, error) {
	files, err := filepath.Glob(filepath.Join(root, "v2", "*", "*", "manifests", "*"))
	if err != nil {
		return nil, err
	}
	manifests := map[string][]byte{}
	for _, file := range files {
		if manifests[strings.TrimPrefix(file, root)], err = os.ReadFile(file); err != nil {
			return nil, err
		}
	}
	return manifests, nil
}

func (f floor) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := req.URL.Path
	if body, ok := f.manifests[path]; ok {
		h := w.Header()
		h.Set("Content-Type", f.mediaType)
		h.Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
		return
	}
	file, err := os.Open(filepath.Join(f.root, filepath.Clean(path)))
	if err != nil {
		http.NotFound(w, req)
		return
	}
	defer file.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, req, "", time.Time{}, file)
}

// Command floor answers pulls with the least that net/http allows: what Go itself costs. Of what lies in a directory, manifests
// are in memory, with their types and digests, and blobs are files. With an upstream, all comes from there, see fill. Nothing
// is logged or counted.
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
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: floor files <address> <directory> <media type of manifests>")
		fmt.Fprintln(os.Stderr, "       floor fill <address> <directory> <upstream>")
		os.Exit(2)
	}
	var handler http.Handler
	var err error
	if os.Args[1] == "fill" {
		handler = newFill(os.Args[4], os.Args[3])
	} else {
		handler, err = newFloor(os.Args[3], os.Args[4])
	}
	if err == nil {
		err = (&http.Server{Addr: os.Args[2], Handler: handler}).ListenAndServe()
	}
	fmt.Fprintln(os.Stderr, "floor:", err)
	os.Exit(1)
}

type floor struct {
	root, mediaType string
	manifests       map[string][]byte // by path
}

func newFloor(root, mediaType string) (floor, error) {
	manifests, err := load(root)
	return floor{root: root, mediaType: mediaType, manifests: manifests}, err
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

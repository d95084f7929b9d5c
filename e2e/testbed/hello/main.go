// Command hello is the program of the test images. It prints a greeting and then what it finds in the file system
// that its image's layers make up, so that one run shows whether all of them arrived and were applied in order.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

func run() error {
	fmt.Printf("hello from entrepot's test image, %s/%s\n", runtime.GOOS, runtime.GOARCH)
	root := os.DirFS("/layers")
	return fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := fs.Stat(root, path)
		if err != nil {
			return err
		}
		text, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		fmt.Printf("%s %s %s", info.Mode(), path, text)
		return nil
	})
}

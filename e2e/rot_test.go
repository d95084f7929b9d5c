package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/entrepot/entrepot/e2e/bench/origin"
	"github.com/entrepot/entrepot/e2e/testbed"
)

// What befalls layers while the mirror runs heals with the pull that finds it. Manifests are in memory, and don't notice.
func TestPromiseDamageHealsWhileItRuns(t *testing.T) {
	for _, d := range []damage{
		{name: "a byte is flipped", do: eachFile(flip), healed: []string{wrongContent}},
		{name: "files are cut", do: eachFile(cut), healed: []string{wrongSize, wrongContent}},
		{name: "files are gone", do: eachFile(os.Remove), healed: []string{missing}},
		{name: "files are directories", do: eachFile(toDirectory), healed: []string{unreadable}},
		{name: "files are links", do: toLinks, healed: []string{unreadable}},
	} {
		t.Run(d.name, func(t *testing.T) {
			s := openShop(t, origin.Line{}, testbed.EntrepotOptions{})
			images := s.stock(t)
			w := wreckOf(t, s, images)
			w.files = s.layerFiles(images)
			if err := d.do(w); err != nil {
				t.Fatal(err)
			}
			s.heals(t, images, d.healed, d.kept)
		})
	}
}

// layerFiles are the files of all layers.
func (s *shop) layerFiles(images []origin.Image) []string {
	var files []string
	seen := map[string]bool{}
	for _, i := range images {
		for _, l := range i.Layers {
			if !seen[l.Digest] {
				seen[l.Digest] = true
				files = append(files, blobFile(s.entrepot, l.Digest))
			}
		}
	}
	return files
}

// Files that rot without a trace in size or times are found by who looks at the bytes: entrepot verify, with the mirror stopped.
func TestPromiseRotIsFoundByVerify(t *testing.T) {
	s := openShop(t, origin.Line{}, testbed.EntrepotOptions{})
	images := s.stock(t)
	w := wreckOf(t, s, images)
	if err := s.entrepot.Stop(); err != nil {
		t.Fatal(err)
	}
	verify := func(args ...string) (string, error) {
		return testbed.Run(running, nil, bed.Programs.Entrepot, append([]string{"verify", "--data-dir", s.entrepot.Data}, args...)...)
	}
	if told, err := verify("--check"); err != nil {
		t.Fatalf("there is nothing wrong yet: %v\n%s", err, told)
	}
	if err := eachFile(rot)(w); err != nil {
		t.Fatal(err)
	}
	if told, err := verify("--check"); err == nil {
		t.Errorf("verify --check finds nothing wrong where every file is:\n%s", told)
	}
	if told, err := verify(); err != nil {
		t.Errorf("%v\n%s", err, told)
	}
	if told, err := verify("--check"); err != nil {
		t.Errorf("something is wrong after the repair: %v\n%s", err, told)
	}
	if err := s.entrepot.Start(running); err != nil {
		t.Fatal(err)
	}
	s.heals(t, images, nil, false)
}

// The scrubber finds them while the mirror runs.
func TestPromiseRotIsFoundByTheScrubber(t *testing.T) {
	s := openShop(t, origin.Line{}, testbed.EntrepotOptions{Config: "cache: {scrub_rate: 1GB/s}\n"})
	images := s.stock(t)
	files := s.layerFiles(images)
	if err := eachFile(rot)(wreck{files: files}); err != nil {
		t.Fatal(err)
	}
	// A start makes a round begin: a running one has just been there.
	if err := errors.Join(s.entrepot.Stop(), s.entrepot.Start(running)); err != nil {
		t.Fatal(err)
	}
	err := testbed.Until(running, "the scrubber to drop what is wrong", func(context.Context) error {
		for _, file := range files {
			if _, err := os.Stat(file); err == nil {
				return fmt.Errorf("%s is there", file)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.heals(t, images, []string{wrongContent}, false)
}

// What has not been verified for longer than verify_after is verified while it is served: a wrong body is cut before its end,
// and the next pull is right.
func TestPromiseRotIsFoundByServing(t *testing.T) {
	const after = time.Second
	s := openShop(t, origin.Line{}, testbed.EntrepotOptions{
		Config: fmt.Sprintf("cache: {scrub_rate: off, verify_after: %s}\n", after),
	})
	images := s.stock(t)
	if err := eachFile(rot)(wreck{files: s.layerFiles(images)}); err != nil {
		t.Fatal(err)
	}
	// The time of the last verification is known by the second.
	begun := time.Now()
	err := testbed.Until(running, "the layers to be old enough", func(context.Context) error {
		if age := time.Since(begun); age < after+time.Second {
			return fmt.Errorf("they are %v old", age)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, i := range images {
		for _, l := range i.Layers {
			if seen[l.Digest] {
				continue
			}
			seen[l.Digest] = true
			s.isCut(t, i, l)
		}
	}
	s.heals(t, images, []string{wrongContent}, false)
}

// isCut asks for a layer whose file is wrong. The body must not come to its end, unless it is right after all.
func (s *shop) isCut(t *testing.T, i origin.Image, l origin.Blob) {
	t.Helper()
	path := i.BlobPath(l.Digest)
	a, body, err := s.ask(running, "GET", path, "", 200)
	if err != nil {
		t.Error(err)
		return
	}
	defer body.Close()
	n, wrong, err := readBeside(body, l)
	if wrong && err == nil {
		t.Errorf("GET %s (%s): all %d bytes came, though some of them are wrong", path, a.verdict, n)
	}
	t.Logf("%d of %d bytes came (%s), wrong ones among them: %v; then: %v", n, l.Size, a.verdict, wrong, err)
}

// readBeside reads a body to its end, wrong bytes or not, and tells whether there were any.
func readBeside(body io.Reader, b origin.Blob) (n int64, wrong bool, err error) {
	check := b.Check(0)
	n, err = io.Copy(writerFunc(func(p []byte) (int, error) {
		if !wrong {
			_, failed := check.Write(p)
			wrong = failed != nil
		}
		return len(p), nil
	}), body)
	return n, wrong, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

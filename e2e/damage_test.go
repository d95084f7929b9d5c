package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/e2e/bench/origin"
	"github.com/entrepot/entrepot/e2e/testbed"
)

// The labels of entrepot_cache_healed_total.
const (
	wrongContent = "content"
	wrongSize    = "size"
	missing      = "missing"
	unreadable   = "unreadable"
	wrongIndex   = "index"
	leftover     = "leftover"
)

// damage is something that befalls a data directory.
type damage struct {
	name string
	// do does it to a directory whose process has been stopped.
	do func(w wreck) error
	// healed are the labels that it may be counted by: one of them has to be. None if it may be no damage at all.
	healed []string
	// kept is whether all layers are what they were: then none is fetched again.
	kept bool
	// parked is whether there is a layer that has landed in part, killed whether the process was.
	parked, killed bool
	// user is who runs the mirror, 0 for the user of the test.
	user int
}

// wreck is a data directory and what is in it.
type wreck struct {
	data string
	// files are those of all content, manifests included.
	files []string
	// outside is a file that is not in the directory, and no business of the mirror's.
	outside string
}

var damages = []damage{
	{name: "a byte of every file is flipped", do: eachFile(flip), healed: []string{wrongContent}},
	{name: "every file is cut", do: eachFile(cut), healed: []string{wrongSize, wrongContent}},
	{name: "every file is empty", do: eachFile(empty), healed: []string{wrongSize, wrongContent}},
	{name: "every file has grown", do: eachFile(grow), healed: []string{wrongSize, wrongContent}},
	{name: "every file is gone", do: eachFile(os.Remove), healed: []string{missing}},
	{name: "the directory of all files is gone", do: below("blobs", os.RemoveAll), healed: []string{missing}},
	{name: "garbage in partial", do: litter, healed: []string{leftover}, kept: true},
	{name: "a parked layer has a flipped byte", do: flipParked, healed: []string{wrongContent}, parked: true},
	{name: "the index is gone", do: below("index", os.RemoveAll), healed: []string{wrongIndex}, kept: true},
	{name: "all of the index is noise", do: noiseIn(""), healed: []string{wrongIndex}, kept: true},
	{name: "all of the index is noise after a kill", do: noiseIn(""), healed: []string{wrongIndex}, kept: true, killed: true},
	{name: "the index's log is noise after a kill", do: noiseIn("*.mem"), healed: []string{wrongIndex}, kept: true, killed: true},
	{name: "the index's tables are noise", do: noiseIn("*.sst"), healed: []string{wrongIndex}, kept: true},
	{name: "the index's manifest is noise", do: noiseIn("MANIFEST"), healed: []string{wrongIndex}, kept: true},
	{name: "the index's keys are noise", do: noiseIn("KEYREGISTRY"), healed: []string{wrongIndex}, kept: true},
	// There is nothing in these that is missed.
	{name: "the index's values are noise", do: noiseIn("*.vlog"), kept: true},
	{name: "the index's statistics are noise", do: noiseIn("DISCARD"), kept: true},
	{name: "every file is a directory", do: eachFile(toDirectory), healed: []string{unreadable}},
	{name: "every file is a link", do: toLinks, healed: []string{unreadable}},
	{name: "no file may be read", do: eachFile(forbid), healed: []string{unreadable}, user: ordinary},
	{name: "every file is somebody else's", do: eachFile(takeAway), healed: []string{unreadable}, user: ordinary},
	{name: "no directory of content may be read", do: below("blobs", forbidAll), healed: []string{unreadable}, user: ordinary},
	{name: "partial may not be read", do: below("partial", forbid), healed: []string{unreadable, leftover}, kept: true,
		user: ordinary},
	{name: "the index may not be read", do: below("index", forbidAll), healed: []string{wrongIndex, unreadable}, kept: true,
		user: ordinary},
}

// Whatever befalls the data directory of a mirror that is stopped: one pull afterwards gets the right bytes, all is a hit after
// that, and what was healed is counted.
func TestPromiseDamageHeals(t *testing.T) {
	needRoot(t)
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) { d.heals(t) })
	}
}

func (d damage) heals(t *testing.T) {
	options := testbed.EntrepotOptions{User: d.user, Config: "cache: {when_abandoned: park}\n"}
	if d.user != 0 {
		options.DataDir = ordinaryDir(t)
	}
	s := openShop(t, origin.Line{}, options)
	images := s.stock(t)
	w := wreckOf(t, s, images)
	if d.parked {
		images = append(images, s.park(t))
	}
	end := s.entrepot.Stop
	if d.killed {
		end = s.entrepot.Kill
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if err := d.do(w); err != nil {
		t.Fatal(err)
	}
	if err := s.entrepot.Start(running); err != nil {
		t.Fatal(err)
	}
	s.heals(t, images, d.healed, d.kept)
}

// heals pulls the images once, right or not at all, and then expects all to be hits and the healing to be counted.
func (s *shop) heals(t *testing.T, images []origin.Image, healed []string, kept bool) {
	t.Helper()
	before := s.upstream.Count()
	for _, i := range images {
		if err := s.image(running, i, nil); err != nil {
			t.Errorf("the first pull: %v", err)
		}
	}
	if n := s.upstream.Count().Since(before).Gets[origin.Layers]; kept && n != 0 {
		t.Errorf("%d layers were fetched again that are what they were", n)
	}
	if err := s.allHit(images...); err != nil {
		t.Errorf("after the first pull: %v", err)
	}
	if err := s.wasHealed(healed); err != nil {
		t.Error(err)
	}
	before = s.upstream.Count()
	for _, i := range images {
		if err := s.image(running, i, nil); err != nil {
			t.Errorf("the second pull: %v", err)
		}
	}
	if c := s.upstream.Count().Since(before); c.AllBytes() != 0 {
		t.Errorf("the second pull cost upstream %+v", c)
	}
}

// wasHealed waits until one of the labels is counted: content is counted when it is here again.
func (s *shop) wasHealed(labels []string) error {
	const name = "entrepot_cache_healed_total"
	if len(labels) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(running, healsWithin)
	defer cancel()
	return testbed.Until(ctx, "one of "+strings.Join(labels, ", ")+" to be counted", func(ctx context.Context) error {
		all, err := s.entrepot.Metrics(ctx)
		if err != nil {
			return err
		}
		counted := all.Of(name)
		if slices.ContainsFunc(labels, func(label string) bool { return counted[fmt.Sprintf("{damage=%q}", label)] > 0 }) {
			return nil
		}
		return fmt.Errorf("%s: %v", name, counted)
	})
}

// stock pulls two images, which share a layer, until all of them is kept.
func (s *shop) stock(t *testing.T) []origin.Image {
	t.Helper()
	shared := s.store.Blob(300_000)
	var images []origin.Image
	for _, repository := range []string{"library/one", "library/two"} {
		i, err := s.store.Push(repository, "1.0", shared, s.store.Blob(1<<20+7), s.store.Blob(1000), s.store.Blob(4096))
		if err == nil {
			err = s.image(running, i, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, i)
	}
	if err := s.allHit(images...); err != nil {
		t.Fatal(err)
	}
	return images
}

// park leaves the layer of an image in the middle, and waits for it to be parked.
func (s *shop) park(t *testing.T) origin.Image {
	t.Helper()
	i := s.push(t, "library/parked", 64<<20)
	l := i.Layers[0]
	if _, err := s.leave(running, i, l, 1<<20); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(s.entrepot.Data, "partial", strings.Replace(l.Digest, ":", "-", 1)+".state")
	err := testbed.Until(running, "a layer to be parked", func(context.Context) error {
		_, err := os.Stat(state)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// wreckOf finds the files of the images. Each content has one.
func wreckOf(t *testing.T, s *shop, images []origin.Image) wreck {
	t.Helper()
	w := wreck{data: s.entrepot.Data, outside: filepath.Join(t.TempDir(), "outside")}
	writeFile(t, w.outside, "what is here is no content")
	for _, i := range images {
		for _, path := range paths(i) {
			file := blobFile(s.entrepot, path[strings.LastIndex(path, "/")+1:])
			if slices.Contains(w.files, file) {
				continue
			}
			if _, err := os.Stat(file); err != nil {
				t.Fatal(err)
			}
			w.files = append(w.files, file)
		}
	}
	t.Cleanup(func() {
		if text, err := os.ReadFile(w.outside); err != nil || string(text) != "what is here is no content" {
			t.Errorf("a file outside the data directory was changed: %q, %v", text, err)
		}
	})
	return w
}

func eachFile(do func(path string) error) func(wreck) error {
	return func(w wreck) error {
		var errs []error
		for _, file := range w.files {
			errs = append(errs, do(file))
		}
		return errors.Join(errs...)
	}
}

func below(name string, do func(path string) error) func(wreck) error {
	return func(w wreck) error { return do(filepath.Join(w.data, name)) }
}

// noiseIn overwrites the files of the index that match a pattern with noise, all of them if it is empty. There has to be one.
func noiseIn(pattern string) func(wreck) error {
	return func(w wreck) error {
		n := 0
		err := filepath.WalkDir(filepath.Join(w.data, "index"), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			if match, err := filepath.Match(pattern, e.Name()); err != nil || !match && pattern != "" {
				return err
			}
			n++
			return noise(path)
		})
		if err == nil && n == 0 {
			err = fmt.Errorf("no file of the index is called %q", pattern)
		}
		return err
	}
}

package e2e

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// What may befall a file.

// flip inverts a byte in the middle.
func flip(path string) error { return flipAt(path, 1, 2) }

// flipAt inverts the byte that is num/den of the way in.
func flipAt(path string, num, den int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	var b [1]byte
	at := info.Size() * num / den
	_, err = f.ReadAt(b[:], at)
	if err == nil {
		b[0] = ^b[0]
		_, err = f.WriteAt(b[:], at)
	}
	return errors.Join(err, f.Close())
}

// rot is flip that leaves no trace in the file's times.
func rot(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return errors.Join(flip(path), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

func cut(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()/2)
}

func empty(path string) error { return os.Truncate(path, 0) }

func grow(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("x")
	return errors.Join(err, f.Close())
}

// noise overwrites all of a file. Those of the index are large and mostly holes: what is beyond the first megabyte is not theirs.
func noise(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	b := make([]byte, min(info.Size(), 1<<20))
	rand.NewChaCha8([32]byte{2}).Read(b)
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}

// toDirectory puts a directory in a file's place that is not empty.
func toDirectory(path string) error {
	return errors.Join(os.Remove(path), os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, "file"), []byte("x"), 0o644))
}

// toLinks puts links in the place of files: to a file outside, to nothing, to the next file, to itself.
func toLinks(w wreck) error {
	var errs []error
	for k, file := range w.files {
		next := w.files[(k+1)%len(w.files)]
		to := []string{w.outside, filepath.Join(w.data, "nothing"), next, file}[k%4]
		errs = append(errs, os.Remove(file), os.Symlink(to, file))
	}
	return errors.Join(errs...)
}

func forbid(path string) error { return os.Chmod(path, 0) }

// forbidAll is forbid for all that is below too.
func forbidAll(path string) error {
	var all []string
	err := filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	for _, path := range all {
		err = errors.Join(err, os.Chmod(path, 0))
	}
	return err
}

// takeAway gives a file to root alone. Its directory stays its owner's.
func takeAway(path string) error { return errors.Join(os.Chown(path, 0, 0), os.Chmod(path, 0o600)) }

// litter leaves all kinds of things in partial/.
func litter(w wreck) error {
	const digest = "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	partial := func(name ...string) string { return filepath.Join(append([]string{w.data, "partial"}, name...)...) }
	return errors.Join(
		os.WriteFile(partial("garbage"), []byte("x"), 0o644),
		os.WriteFile(partial("put-17"), []byte("x"), 0o644),
		os.WriteFile(partial(digest), []byte("no state"), 0o644),
		os.WriteFile(partial(digest+".state.draft"), []byte("x"), 0o644),
		os.WriteFile(partial(".hidden"), nil, 0),
		os.MkdirAll(partial("directory", "of", "directories"), 0o755),
		os.WriteFile(partial("directory", "of", "file"), []byte("x"), 0),
		os.Mkdir(partial("locked"), 0),
		os.Symlink(w.outside, partial("link")),
		os.Symlink(filepath.Dir(w.outside), partial("link-to-directory")),
		os.Symlink("nothing", partial("link-to-nothing")),
	)
}

// flipParked flips a byte of what has landed of the parked layer.
func flipParked(w wreck) error {
	states, err := filepath.Glob(filepath.Join(w.data, "partial", "*.state"))
	if err == nil && len(states) != 1 {
		err = errors.New("there is not one layer parked")
	}
	if err != nil {
		return err
	}
	content := states[0][:len(states[0])-len(".state")]
	return flipAt(content, 1, 100)
}

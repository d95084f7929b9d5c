package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
)

// space returns how many bytes the cache may take, 0 for no limit, and how many it must leave free. Shares are of the file system
// of the data directory, which the configuration can't know.
func space(c *config.Config, log *zap.Logger) (maxSize, minFree int64, err error) {
	capacity, err := cache.Capacity(c.DataDir)
	if err != nil {
		return 0, 0, unusable(fmt.Errorf("data directory: %w", err))
	}
	maxSize, minFree = bytesOf(c.Cache.MaxSize, capacity), bytesOf(c.Cache.MinFree, capacity)
	if !c.Cache.MaxSize.IsZero() && maxSize < config.LeastSize {
		return 0, 0, fmt.Errorf("cache.max_size: %s of the file system of %s, which has %s, is less than %s: "+
			"there would be no room for an index and content; allowed: a larger share, or to leave the key out",
			c.Cache.MaxSize, c.DataDir, bytesText(capacity), config.Size(config.LeastSize))
	}
	if minFree >= capacity {
		log.Warn("nothing can be kept: cache.min_free is all of the file system",
			zap.Stringer("min_free", c.Cache.MinFree), zap.String("data", c.DataDir), zap.String("capacity", bytesText(capacity)))
	}
	return maxSize, minFree, nil
}

// bytesOf is how many bytes an amount of disk stands for on a file system of that capacity.
func bytesOf(s config.Space, capacity int64) int64 {
	if s.Percent == 0 {
		return s.Bytes
	}
	return int64(float64(capacity) * s.Percent / 100)
}

// unusable adds to what is wrong with a data directory what can be done about it.
func unusable(err error) error {
	const orElse = ", or name another by data_dir (--data-dir)"
	for _, known := range []struct {
		is     error
		remedy string
	}{
		{fs.ErrPermission, fmt.Sprintf("let user %d have it", os.Geteuid())},
		{fs.ErrNotExist, "there is nothing: look whether data_dir is what the mirror has"},
		{syscall.EROFS, "its file system is mounted read-only: mount it for writing"},
		{syscall.ENOSPC, "its file system has no room, or no inodes, left: make some"},
		{syscall.ENOTDIR, "part of the path is a file: move that away"},
		{syscall.EEXIST, "there is something else of that name: move that away"},
	} {
		if errors.Is(err, known.is) {
			return fmt.Errorf("%w: %s%s", err, known.remedy, orElse)
		}
	}
	return err
}

// pinned is what the patterns say of an image; nil if there are none.
func pinned(patterns []config.Pattern) func(cache.Repository, string) bool {
	if len(patterns) == 0 {
		return nil
	}
	return func(repo cache.Repository, tag string) bool {
		return slices.ContainsFunc(patterns, func(p config.Pattern) bool { return p.Match(repo.Registry, repo.Name, tag) })
	}
}

// scrubRate is how the cache is told the rate.
func scrubRate(r config.ScrubRate) int64 {
	switch r {
	case config.ScrubWeekly:
		return 0
	case config.ScrubOff:
		return -1
	}
	return int64(r)
}

// owned returns an error if root is about to work in somebody else's data directory: what root makes there, a mirror that runs as its
// owner could not use.
func owned(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return unusable(fmt.Errorf("data directory: %w", err))
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && !ownedBy(int(st.Uid), os.Geteuid()) {
		return fmt.Errorf("data directory %s: it belongs to user %d, who could not use what root makes in it; run this as that user: "+
			"setpriv --reuid %[2]d --clear-groups entrepot …", dir, st.Uid)
	}
	return nil
}

// ownedBy reports whether what user makes in a directory of owner's is of use to owner: of others than root, the kernel says so.
func ownedBy(owner, user int) bool { return user != 0 || owner == 0 }

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
)

func verifyCommand(environ []string) *cobra.Command {
	var f flags
	var check, asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read all that is kept, and mend it, while no mirror runs",
		Long: `Read everything in the data directory with all processors, compare it with its digests, and mend what is wrong:

  content that is right is marked as verified now, so that it is not read again before it is served
  content that is wrong, or can't be read, is removed: a mirror fetches it again when somebody asks for it
  files that are nobody's are removed from partial/
  an index that is damaged is moved aside and begun anew; content is kept

It works on a data directory that no process has open, and waits some seconds for one that is about to end: stop the mirror first.
It need not be run ever: a running mirror reads everything again by itself (cache.scrub_rate), and what it does not trust before it
serves it. Run it after a crash of the file system, after a restore from a backup, or before a disk is given to somebody else.

With --check nothing is changed, and the exit code is 1 if anything is wrong. ^C ends it: what has been read by then stays verified.`,
		Example: `  systemctl stop entrepot && entrepot verify --config /etc/entrepot.yaml && systemctl start entrepot
  entrepot verify --check --json --data-dir /mnt/restored`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load(cmd, environ)
			if err != nil {
				return err
			}
			log, _, stop := newLogger(c.Log, cmd.ErrOrStderr())
			return errors.Join(verify(cmd.Context(), c, check, asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr(), log), stop())
		},
	}
	f.registerData(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "change nothing; exit with 1 if anything is wrong")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON, for programs")
	return cmd
}

// verify verifies the data directory. The result goes to out, how far it is to progress.
func verify(ctx context.Context, c *config.Config, check, asJSON bool, out, progress io.Writer, log *zap.Logger) error {
	if err := owned(c.DataDir); err != nil && !check {
		return err
	}
	maxSize, minFree, err := space(c, log)
	if err != nil {
		return err
	}
	bar := newProgress(progress)
	report, err := cache.Verify(ctx, cache.VerifyOptions{
		DataDir: c.DataDir, IndexDir: c.IndexDir, MaxSize: maxSize, MinFree: minFree, Check: check, Progress: bar.at, Log: log,
	})
	bar.end()
	if err != nil && report.AllBlobs == 0 && !errors.Is(err, context.Canceled) {
		return unusable(err) // it has not begun
	}
	var printed error
	if asJSON {
		printed = writeJSON(out, report)
	} else {
		printed = printReport(out, report, check)
	}
	switch {
	case ctx.Err() != nil:
		return errors.Join(fmt.Errorf("interrupted after %s of %s", bytesText(report.Bytes), bytesText(report.AllBytes)), printed)
	case err == nil && check && !report.Sound():
		err = errors.New("something is wrong: run entrepot verify without --check to mend it")
	}
	return errors.Join(err, printed)
}

// printReport writes what was found for people.
func printReport(w io.Writer, r cache.VerifyReport, check bool) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s  %s\n", name, fmt.Sprintf(format, args...))
	}
	removed := "removed, to be fetched again when asked for"
	if check {
		removed = "left as it is"
	}
	line("read", "%s of %s blobs and manifests, %s of %s, in %s",
		countText(r.Blobs), countText(r.AllBlobs), bytesText(r.Bytes), bytesText(r.AllBytes), r.Took.Round(time.Second/10))
	line("right", "%s, of which %s were not known to be", countText(r.Right), countText(r.Adopted))
	line("wrong", "%s", countText(len(r.Wrong)))
	for i, wrong := range r.Wrong {
		if i == mostShown {
			line("", "and %s more: --json lists all", countText(len(r.Wrong)-i))
			break
		}
		line("", "%s  %s, %s: %s", wrong.Digest, wrong.Damage, bytesText(wrong.Size), removed)
	}
	if r.Leftovers > 0 {
		line("leftovers", "%s files in partial/ that are nobody's%s", countText(r.Leftovers), map[bool]string{false: ", removed"}[check])
	}
	line("index", "%s", indexText(r.Index, check))
	_, err := io.WriteString(w, b.String())
	return err
}

// mostShown is how much that is wrong is listed for people.
const mostShown = 20

func indexText(found string, check bool) string {
	switch {
	case found == "":
		return "as it was left"
	case found == "missing":
		return "none: tags will be asked for again"
	case check:
		return "damaged: " + found
	}
	return "damaged, moved aside and begun anew (" + found + "): tags will be asked for again"
}

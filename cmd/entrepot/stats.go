package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
)

func cacheCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{Use: "cache", Short: "Look into the cache"}
	cmd.AddCommand(statsCommand(environ))
	return cmd
}

func statsCommand(environ []string) *cobra.Command {
	var f flags
	var admin string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Print what the cache holds, what it takes, and how it is",
		Long: `Print what the cache holds, what it takes, and how it is.

The running mirror is asked, at the admin_listen of the configuration, or at --admin URL. If nothing listens there and no process has
the data directory open, the directory itself is read, and nothing in it changed.

  on disk       what content, transfers, the index and what is held ready for it take, of what max_size allows
  free          what is free on the file system; min_free of it stays so
  content       blobs and manifests that are kept; what is pinned stays when others go to make room
  parked        transfers that nobody waits for any more, taken up by whoever asks next
  evicted       what went to make room. Much, soon after it came: max_size is small for what is pulled
  read again    what the scrubber found right, and what it found damaged and dropped, to be fetched again
  state         fine, or why the disk is not used as it might be; pulls stream through meanwhile

With --json, the figures are printed as GET /api/cache of the admin listener gives them, in bytes.`,
		Example: `  entrepot cache stats
  entrepot cache stats --config /etc/entrepot.yaml --json
  entrepot cache stats --admin http://mirror.example:5001`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load(cmd, environ)
			if err != nil {
				return err
			}
			s, err := findStats(cmd.Context(), c, admin)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), s.Stats)
			}
			return s.print(cmd.OutOrStdout(), time.Now())
		},
	}
	f.registerData(cmd)
	cmd.Flags().StringVar(&admin, "admin", "", "URL of a mirror's admin listener (default: that of the configuration)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	return cmd
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// stats are figures of a cache, and where they come from.
type stats struct {
	cache.Stats
	from string
	live bool // from a running mirror: what adds up since its start is known
}

// findStats asks the mirror at that address, or else the one that is configured, or else the data directory, for no mirror need be
// running.
func findStats(ctx context.Context, c *config.Config, admin string) (stats, error) {
	if admin != "" {
		if !strings.Contains(admin, "://") {
			admin = "http://" + admin
		}
		return askStats(ctx, strings.TrimRight(admin, "/"))
	}
	address := adminURL(c.AdminListen)
	if address != "" {
		s, err := askStats(ctx, address)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return s, err
		}
	}
	s, err := cache.Survey(ctx, c.DataDir, c.IndexDir)
	switch {
	case errors.Is(err, cache.ErrLocked) && address != "":
		return stats{}, fmt.Errorf("%w, and no mirror answers at %s: say where it does by --admin URL", err, address)
	case errors.Is(err, cache.ErrLocked):
		return stats{}, fmt.Errorf("%w, and admin_listen is off: stop that process, or give it an admin_listen", err)
	case err != nil:
		return stats{}, unusable(err)
	}
	s.Limit, _, err = space(c, zap.NewNop())
	return stats{Stats: s, from: c.DataDir + ", which no process has open"}, err
}

// adminURL is where a mirror that listens on that address can be asked from the same machine; "" for none.
func adminURL(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.Is4() && ip.IsUnspecified() {
		host = "127.0.0.1"
	} else if err == nil && ip.IsUnspecified() {
		host = "::1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// askPatience is how long a mirror may take to answer: it only adds up what it knows.
const askPatience = 10 * time.Second

// askStats asks a running mirror.
func askStats(ctx context.Context, admin string) (s stats, err error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+proxy.CachePath, nil)
	if err != nil {
		return s, err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK || kind != "application/json" {
		return s, fmt.Errorf("%s answers %s (%s): is it the admin listener of an entrepot of this version?", req.URL, res.Status, kind)
	}
	s.from, s.live = admin, true
	if err := json.NewDecoder(res.Body).Decode(&s.Stats); err != nil {
		return s, fmt.Errorf("%s: %w", req.URL, err)
	}
	return s, nil
}

// print writes the figures for people.
func (s stats) print(w io.Writer, now time.Time) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s  %s\n", name, fmt.Sprintf(format, args...))
	}
	line("from", "%s", s.from)
	if s.Limit > 0 {
		line("on disk", "%s of %s  %s", bytesText(s.Bytes), bytesText(s.Limit), gauge(s.Bytes, s.Limit))
	} else {
		line("on disk", "%s, no limit but the free space", bytesText(s.Bytes))
	}
	line("free", "%s on the file system", bytesText(s.Free))
	content := countText(s.Content) + " blobs and manifests"
	if s.Pinned > 0 {
		content += ", " + countText(s.Pinned) + " of them pinned"
	}
	line("content", "%s", content)
	line("index", "%s", bytesText(s.Index))
	line("parked", "%s", bytesText(s.Parked))
	if s.live {
		line("transfers", "%s under way, followed by %s clients", countText(s.Fills), countText(s.Readers))
		line("evicted", "%s (%s) since the start", countText(s.Evicted), bytesText(s.EvictedBytes))
		line("read again", "%s (%s) since the start; %s damaged", countText(s.Scrubbed), bytesText(s.ScrubbedBytes), countText(s.Damaged))
	}
	if s.Content > 0 && !s.Oldest.IsZero() {
		line("verified", "all of it, the oldest %s", humanize.RelTime(s.Oldest, now, "ago", "ahead of this clock"))
	}
	if s.live && len(s.Degraded) == 0 {
		line("state", "fine")
	}
	for _, reason := range s.Degraded {
		line("state", "degraded: %s", reason)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// gauge draws how much of a whole there is.
func gauge(part, whole int64) string {
	const width = 20
	share := min(1, max(0, float64(part)/float64(whole)))
	full := int(share*width + 0.5)
	return fmt.Sprintf("[%s%s] %.0f%%", strings.Repeat("#", full), strings.Repeat(".", width-full), 100*share)
}

func bytesText[N int64 | uint64](n N) string { return humanize.IBytes(uint64(max(n, 0))) }

func countText[N int | uint64](n N) string { return humanize.Comma(int64(n)) }

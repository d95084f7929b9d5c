package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// teller writes for a person. It colours only a terminal's screen, and not if NO_COLOR is set.
type teller struct {
	w      io.Writer
	colour bool
}

func newTeller(f *os.File) *teller {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &teller{w: f, colour: terminal && os.Getenv("NO_COLOR") == ""}
}

// The escape sequences in use.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
)

func (t *teller) paint(code, s string) string {
	if !t.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (t *teller) blank() { fmt.Fprintln(t.w) }

func (t *teller) line(format string, args ...any) { fmt.Fprintf(t.w, "  "+format+"\n", args...) }

func (t *teller) title(s string) {
	fmt.Fprintf(t.w, "\n%s\n\n", t.paint(bold, s))
}

func (t *teller) scene(n int, title string) {
	fmt.Fprintf(t.w, "\n%s\n", t.paint(bold, fmt.Sprintf("%d  %s", n, title)))
}

func (t *teller) held(format string, args ...any) {
	t.line("%s", t.paint(green, "✔ "+fmt.Sprintf(format, args...)))
}

func (t *teller) broke(err error) {
	t.line("%s", t.paint(red, "✘ "+strings.ReplaceAll(err.Error(), "\n", "\n    ")))
}

// pair is a label and what it labels.
func (t *teller) pair(label, value string) {
	t.line("  %s %s", t.paint(faint, fmt.Sprintf("%-12s", label)), value)
}

// answers is a table of what was asked and how it was answered.
func (t *teller) answers(repository string, answers []testbed.Answer) {
	t.line("  %s", t.paint(faint, fmt.Sprintf("%-32s %9s %11s %9s  %s", "GET", "bytes", "first byte", "last", "Cache-Status: entrepot; …")))
	for _, a := range answers {
		what := strings.TrimPrefix(a.Path, "/v2/"+repository+"/")
		// Twelve digits tell digests apart here as elsewhere.
		if at := strings.Index(what, "sha256:"); at >= 0 && len(what) > at+19 {
			what = what[:at+19] + "…"
		}
		t.line("  %-32s %9s %11s %9s  %s", what, size(a.Bytes), duration(a.FirstByte), duration(a.Took), a.Verdict())
	}
}

// header is one header of an answer, below its line in the table.
func (t *teller) header(name, value string) {
	t.line("    %s", t.paint(faint, name+": "+value))
}

// bars compares two amounts at a glance.
func (t *teller) bars(served, fetched int64) {
	const width = 60
	n := max(1, int(width*fetched/max(served, 1)))
	t.blank()
	t.pair("served", strings.Repeat("█", width)+" "+size(served))
	t.pair("fetched", strings.Repeat("█", n)+" "+size(fetched))
	t.blank()
}

// farewell says how to go on.
func (t *teller) farewell() {
	fmt.Fprintf(t.w, `
%s

  make run                      an entrepot before Docker Hub, on port 5000, keeping its cache in ./data
  /etc/docker/daemon.json       {"registry-mirrors": ["http://127.0.0.1:5000"]}
  systemctl restart docker      and then pull something twice

`, t.paint(bold, "All four scenes held. To go on:"))
}

// requests sums up what crossed the line.
func requests(t testbed.Traffic) string {
	if len(t) == 0 {
		return "0 requests"
	}
	noun := "requests"
	if len(t) == 1 {
		noun = "request"
	}
	return fmt.Sprintf("%d %s, %s", len(t), noun, size(t.Bytes()))
}

// size writes bytes in the units of line speeds, with three figures.
func size(n int64) string {
	v, unit := float64(n), 0
	units := []string{"B", "kB", "MB", "GB", "TB"}
	for v >= 999.5 && unit < len(units)-1 {
		v, unit = v/1000, unit+1
	}
	if unit == 0 || v >= 99.5 {
		return fmt.Sprintf("%.0f %s", v, units[unit])
	}
	return fmt.Sprintf("%.1f %s", v, units[unit])
}

// duration writes d with as many figures as mean something to a reader.
func duration(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return seconds(d)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

package credential

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
)

const (
	// maxOutput is how much a program may print: a password and some JSON around it.
	maxOutput = 128 << 10

	// maxComplaint is how much of its standard error is kept, and maxReason how much of the first line of that is told.
	maxComplaint = 4 << 10
	maxReason    = 256

	// afterlife is how long a program's pipes are listened to after its end: what it has left running may hold them open.
	afterlife = 2 * time.Second
)

var errTooMuch = fmt.Errorf("it printed more than %d bytes", maxOutput)

// run runs a program to its end, or to that of ctx. It gets our environment without our own settings, which may hold
// passwords that are none of its business, and a process group of its own, so that what it has started ends with it.
func run(ctx context.Context, stdin, name string, args ...string) (stdout []byte, stderr string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &measured{limit: maxOutput, full: func() { cancel(errTooMuch) }}
	complaint := &measured{limit: maxComplaint, full: func() {}}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "ENTREPOT_") })
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), out, complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = afterlife
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay): // it has ended well itself, which is all that counts
		err = nil
	}
	return out.text, string(complaint.text), err
}

// measured keeps the first bytes of what is written to it, up to limit, and tells when more come.
type measured struct {
	limit int
	full  func()
	text  []byte
}

func (m *measured) Write(p []byte) (int, error) {
	room := min(m.limit-len(m.text), len(p))
	m.text = append(m.text, p[:room]...)
	if room < len(p) {
		m.full()
	}
	return len(p), nil
}

// withReason adds to the error of a program the first line of the first text that has one, without its secrets.
func withReason(err error, texts ...string) error {
	for _, text := range texts {
		if reason := harmless(text); reason != "" {
			return fmt.Errorf("%w: %s", err, reason)
		}
	}
	return err
}

// These find what may be a secret. They take more than they must: a reason with a gap is still one.
var (
	labelled = regexp.MustCompile(`(?i)((?:password|passwd|pwd|secret|token|key|credentials?)["']?\s*[=:]\s*|(?:bearer|basic)\s+)\S+`)
	inURL    = regexp.MustCompile(`(://)[^/\s@]*@`)
	query    = regexp.MustCompile(`(://[^\s?]*)\?\S*`)
	lengthy  = regexp.MustCompile(`[A-Za-z0-9+/_=~-]{20,}`)
)

// harmless returns the first line of what a program says, short and printable, without what may be a secret.
func harmless(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	line = labelled.ReplaceAllString(line, "$1[hidden]")
	line = inURL.ReplaceAllString(line, "$1[hidden]@")
	line = query.ReplaceAllString(line, "$1?[hidden]")
	line = lengthy.ReplaceAllStringFunc(line, func(run string) string {
		// A long word that has both digits and letters, and is no path.
		if strings.HasPrefix(run, "/") || !strings.ContainsFunc(run, unicode.IsDigit) || !strings.ContainsFunc(run, unicode.IsLetter) {
			return run
		}
		return "[hidden]"
	})
	line = strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return ' '
	}, line)
	if len(line) > maxReason {
		line = strings.ToValidUTF8(line[:maxReason], "") + "…"
	}
	return strings.TrimSpace(line)
}

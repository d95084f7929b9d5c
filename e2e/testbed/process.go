package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to end by itself after SIGTERM. A container daemon that ends its
// containers first needs some seconds.
const stopGrace = 15 * time.Second

// Command says what to run and how to know that it is ready.
type Command struct {
	// Name is for messages.
	Name string
	Path string
	Args []string
	// Env is added to this process's environment, of which entrepot's settings are left out: a trial has its own.
	Env []string
	// User is the id of the ordinary user, and of the group, that it runs as; 0: as this process. Linux alone heeds it.
	User int
	// Log is the file that gets standard output and error.
	Log string
	// Ready is nil if there is nothing to wait for; see [Until].
	Ready func(context.Context) error
}

// Process is a running program.
type Process struct {
	name   string
	log    string
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of Wait, valid once exited is closed

	stop    sync.Once
	stopErr error // of the first Stop or Kill
	killed  bool  // by Kill
}

// Start runs c and returns when it is ready. If it never is, it has been stopped, and the error holds its log's end.
func Start(ctx context.Context, c Command) (*Process, error) {
	log, err := os.Create(c.Log)
	if err != nil {
		return nil, err
	}
	// The child has its own descriptor; ours is not needed once it runs.
	defer log.Close()
	p := &Process{name: c.Name, log: c.Log, exited: make(chan struct{})}
	p.cmd = exec.Command(c.Path, c.Args...)
	p.cmd.Env = append(environment(), c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = childAttributes(c.User)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	if c.Ready == nil {
		return p, nil
	}
	if err := p.untilReady(ctx, c.Ready); err != nil {
		err = fmt.Errorf("%w\n--- end of its log:\n%s", err, p.LogTail())
		select {
		case <-p.exited:
			return nil, err
		default:
			return nil, errors.Join(err, p.Stop())
		}
	}
	return p, nil
}

// Run runs a program to its end and returns what it printed on standard output. The environment is as in [Command].
func Run(ctx context.Context, env []string, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(environment(), env...)
	cmd.SysProcAttr = childAttributes(0)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(path), strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool { return strings.HasPrefix(variable, "ENTREPOT_") })
}

// untilReady stops waiting when the process has exited.
func (p *Process) untilReady(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.exited:
			cancel(fmt.Errorf("%s exited: %v", p.name, p.err))
		case <-ctx.Done():
		}
	}()
	return Until(ctx, p.name+" to be ready", ready)
}

// Stop ends the process: SIGTERM, and SIGKILL if that is not enough. Having to kill it is an error, as is a process
// that had ended before it was asked to.
func (p *Process) Stop() error {
	p.stop.Do(func() { p.stopErr = p.end() })
	return p.stopErr
}

func (p *Process) end() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s had ended by itself: %v\n--- end of its log:\n%s", p.name, p.err, p.LogTail())
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", p.name, err)
	}
	late := time.NewTimer(stopGrace)
	defer late.Stop()
	select {
	case <-p.exited:
		return nil
	case <-late.C:
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	<-p.exited
	return fmt.Errorf("%s did not end within %v of SIGTERM and was killed\n--- end of its log:\n%s", p.name, stopGrace, p.LogTail())
}

// Kill ends the process as a crash does.
func (p *Process) Kill() error {
	p.stop.Do(func() {
		p.killed = true
		if p.stopErr = p.cmd.Process.Kill(); p.stopErr == nil {
			<-p.exited
		}
	})
	return p.stopErr
}

// failure is how the process ended, nil if with exit code 0; it must have been stopped.
func (p *Process) failure() error {
	if p.err != nil {
		return fmt.Errorf("%s: %w\n--- end of its log:\n%s", p.name, p.err, p.LogTail())
	}
	return nil
}

// LogTail returns the last few kilobytes that the process wrote.
func (p *Process) LogTail() string {
	const keep = 4 << 10
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(b) > keep {
		b = b[len(b)-keep:]
	}
	return string(b)
}

package main

import (
	"context"
	"net/http"
	"os"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/entrepot/entrepot/config"
)

// running is a mirror that runs in this process.
type running struct {
	mirror, admin string
	stop          context.CancelFunc
	done          chan error

	hangups chan os.Signal
	next    chan func() (*config.Config, error) // what it reads then
	said    logLines                            // what it says of that
}

// reload has the mirror read its settings again, and returns what it says of that first.
func (r *running) reload(next func() (*config.Config, error)) string {
	r.hangups <- syscall.SIGHUP
	r.next <- next
	return <-r.said
}

// logLines are what is written to a log.
type logLines chan string

func (l logLines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// logger writes to l.
func (l logLines) logger() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(l), zapcore.DebugLevel))
}

// start runs a mirror of upstream with changes to the configuration.
func start(t *testing.T, upstream string, change func(*config.Config)) *running {
	t.Helper()
	c, err := config.Load("", nil,
		config.Override{Source: "test", Key: "listen", Value: "127.0.0.1:0"},
		config.Override{Source: "test", Key: "admin_listen", Value: "127.0.0.1:0"},
		config.Override{Source: "test", Key: "data_dir", Value: t.TempDir()},
		config.Override{Source: "test", Key: "upstream", Value: upstream})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(c)
	}
	serving := make(chan []zap.Field, 1)
	core := &tap{Core: zapcore.NewNopCore(), serving: serving}
	ctx, stop := context.WithCancel(t.Context())
	r := &running{stop: stop, done: make(chan error, 1), hangups: make(chan os.Signal),
		next: make(chan func() (*config.Config, error)), said: make(logLines, 10)}
	settings := newSettings(c, func() (*config.Config, error) { return (<-r.next)() }, r.said.logger())
	go func() { r.done <- serve(ctx, settings, r.hangups, zap.New(core)) }()
	select {
	case fields := <-serving:
		for _, f := range fields {
			switch f.Key {
			case "listen":
				r.mirror = "http://" + f.String
			case "admin":
				r.admin = "http://" + f.String
			}
		}
	case err := <-r.done:
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	t.Cleanup(stop)
	return r
}

// tap hears the line that says where the mirror serves.
type tap struct {
	zapcore.Core
	serving chan []zap.Field
}

func (*tap) Enabled(zapcore.Level) bool          { return true }
func (c *tap) With([]zapcore.Field) zapcore.Core { return c }
func (c *tap) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, c)
}
func (c *tap) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if e.Message == "serving" {
		c.serving <- fields
	}
	return nil
}

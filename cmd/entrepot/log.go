package main

import (
	"bytes"
	"io"
	stdlog "log"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/entrepot/entrepot/config"
)

// logDelay is how long a line of the log may wait to be written.
const logDelay = time.Second

// forgetful loses what can't be written, and goes on: a buffer above it would keep the error and write nothing more, and the
// file that the log goes to may lie on the disk that is full for the moment. It has no Sync: the log need not reach the disk,
// and a pipe can't be synced.
type forgetful struct{ w io.Writer }

func (f forgetful) Write(p []byte) (int, error) {
	_, _ = f.w.Write(p)
	return len(p), nil
}

// newLogger logs to w: for people on a terminal, as JSON elsewhere, unless configured. It drops no repeats. Its level can be set
// anew. The caller stops it at the end.
//
// Where nobody is looking on, lines are written several at a time: each request has one, and to write it alone takes as
// long as to find a manifest. A warning and what is worse goes out at once, with all before it. So what a crash, a SIGKILL
// or a power cut can cost is the lines of the last second, and none that tells of a fault.
func newLogger(c config.Log, w io.Writer) (log *zap.Logger, level zap.AtomicLevel, stop func() error) {
	level = zap.NewAtomicLevel()
	setLevel(level, c)
	console := c.Format == "console" || c.Format == "auto" && isTerminal(w)
	var encoder zapcore.Encoder
	if console {
		e := zap.NewDevelopmentEncoderConfig()
		e.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		e.EncodeLevel = zapcore.CapitalColorLevelEncoder
		encoder = zapcore.NewConsoleEncoder(e)
	} else {
		e := zap.NewProductionEncoderConfig()
		e.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		e.EncodeDuration = zapcore.SecondsDurationEncoder
		encoder = zapcore.NewJSONEncoder(e)
	}
	to := zapcore.AddSync(forgetful{w})
	if isTerminal(w) {
		return zap.New(zapcore.NewCore(encoder, zapcore.Lock(to), level)), level, func() error { return nil }
	}
	lines := &zapcore.BufferedWriteSyncer{WS: to, Size: 64 << 10, FlushInterval: logDelay}
	return zap.New(zapcore.NewCore(encoder, lines, level), zap.Hooks(func(e zapcore.Entry) error {
		if e.Level < zapcore.WarnLevel {
			return nil
		}
		return lines.Sync() // the hook runs when the line is in the buffer
	})), level, lines.Stop
}

// setLevel has a logger log what it is configured to.
func setLevel(level zap.AtomicLevel, c config.Log) {
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic(err) // config has checked it
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// errorLog is where net/http writes. It tells of clients that speak no HTTP, which is nothing an operator can mend, and
// now and then of a fault of ours or of the machine's.
func errorLog(log *zap.Logger) *stdlog.Logger { return stdlog.New(httpLines{log}, "", 0) }

// httpLines gives net/http's lines the level that they lack.
type httpLines struct{ log *zap.Logger }

func (l httpLines) Write(line []byte) (int, error) {
	level := zapcore.DebugLevel
	if bytes.Contains(line, []byte("panic serving")) || bytes.Contains(line, []byte("Accept error")) {
		level = zapcore.ErrorLevel
	}
	l.log.Log(level, string(bytes.TrimSpace(line)))
	return len(line), nil
}

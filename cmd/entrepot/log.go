package main

import (
	"bytes"
	"io"
	stdlog "log"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/entrepot/entrepot/config"
)

// newLogger logs to w: for people on a terminal, as JSON elsewhere, unless configured. It drops no repeats.
func newLogger(c config.Log, w io.Writer) *zap.Logger {
	level := zap.NewAtomicLevel()
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic(err) // config has checked it
	}
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
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), level))
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

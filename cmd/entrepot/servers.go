package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/proxy"
)

// endpoint is an address and what is served on it.
type endpoint struct {
	name, address string
	handler       http.Handler
	tls           *tls.Config // nil: plain HTTP
}

// server is an endpoint that listens.
type server struct {
	endpoint
	http     *http.Server
	listener net.Listener
	gate     *gate
	cut      context.CancelFunc // ends the context of every request
}

// gate lets requests through until it is closed. http.Server.Close returns while handlers still run, and what they use is
// closed next; so who closes the gate waits for those within. A request that comes later, on a connection that was
// accepted just before, does not get in: TryRLock fails as soon as close waits.
type gate struct {
	http.Handler
	mu sync.RWMutex // held for reading by each request, and from close on for ever
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.mu.TryRLock() {
		panic(http.ErrAbortHandler)
	}
	defer g.mu.RUnlock()
	g.Handler.ServeHTTP(w, r)
}

func (g *gate) close() { g.mu.Lock() }

// listen opens all addresses, or none. An empty address is left out.
func listen(log *zap.Logger, endpoints []endpoint) (servers []server, err error) {
	for _, e := range endpoints {
		if e.address == "" {
			continue
		}
		l, err := net.Listen("tcp", e.address)
		if err != nil {
			for _, s := range servers {
				s.listener.Close()
				s.cut()
			}
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		e.address = l.Addr().String()
		g := &gate{Handler: e.handler}
		ctx, cut := context.WithCancel(context.Background())
		s := &http.Server{
			Handler:     g,
			BaseContext: func(net.Listener) context.Context { return ctx },
			// No time-outs over whole bodies: a podman that unpacks while it downloads reads for as long as that takes.
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          errorLog(log.Named(e.name)),
		}
		server := server{endpoint: e, http: s, listener: proxy.Listener(s, l), gate: g, cut: cut}
		if e.tls != nil {
			server.listener = tls.NewListener(server.listener, e.tls)
		}
		servers = append(servers, server)
	}
	return servers, nil
}

// addressOf is where a server listens, for the log.
func addressOf(servers []server, name string) string {
	for _, s := range servers {
		if s.name == name {
			return s.address
		}
	}
	return "off"
}

// run serves until ctx ends or a server fails; then bodies in flight may finish within grace. The servers stop one after
// the other, in their order: while the first, the mirror, sends its last bodies, the admin listener still tells of it. No
// handler runs any more when run returns.
func run(ctx context.Context, servers []server, grace time.Duration, stopping func(), log *zap.Logger) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range servers {
		group.Go(func() error {
			if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		stopping()
		log.Info("stopping", zap.Duration("grace", grace))
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		var errs []error
		for _, s := range servers {
			errs = append(errs, s.stop(limited, log))
		}
		return errors.Join(errs...)
	})
	return group.Wait()
}

// stop lets requests finish until grace ends, cuts off those that have not, and waits until their handlers have noticed.
func (s server) stop(grace context.Context, log *zap.Logger) error {
	err := s.http.Shutdown(grace)
	if err != nil {
		log.Warn("bodies in flight were cut off: shutdown_grace is over", zap.String("listener", s.name))
		err = s.http.Close()
	}
	s.cut()
	s.gate.close()
	return err
}

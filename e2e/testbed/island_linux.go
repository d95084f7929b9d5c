package testbed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Island is a network of its own behind a virtual cable: a server on it can be cut off as no process on this machine can, so
// that what is sent to it is swallowed, and every attempt to connect to it is seen.
type Island struct {
	name string
	eye  *os.File

	mu sync.Mutex
	// guards following
	attempts map[uint16]bool // by the port that they came from
}

// The ends of the cable have addresses that are for documentation, and nobody's.
const (
	shore  = "198.51.100.1"
	inland = "198.51.100.2"
)

// OpenIsland makes one. It needs root and ip, and there is one at a time.
func (b *Bed) OpenIsland(ctx context.Context) (*Island, error) {
	id := strconv.Itoa(os.Getpid())
	i := &Island{name: "entrepot" + id, attempts: make(map[uint16]bool)}
	near, far := "eps"+id, "epi"+id
	b.OnClose(i.Close)
	for _, args := range [][]string{
		{"netns", "add", i.name},
		{"link", "add", near, "type", "veth", "peer", "name", far, "netns", i.name},
		{"addr", "add", shore + "/30", "dev", near},
		{"link", "set", near, "up"},
		{"-netns", i.name, "addr", "add", inland + "/30", "dev", far},
		{"-netns", i.name, "link", "set", far, "up"},
	} {
		if _, err := Run(ctx, nil, "ip", args...); err != nil {
			return nil, err
		}
	}
	return i, i.within(func() error { return i.watch() })
}

// Close removes it, with the cable and all.
func (i *Island) Close() error {
	var err error
	if i.eye != nil {
		err = i.eye.Close()
	}
	if _, gone := os.Stat(i.file()); gone == nil {
		_, run := Run(context.Background(), nil, "ip", "netns", "del", i.name)
		err = errors.Join(err, run)
	}
	return err
}

func (i *Island) file() string { return "/run/netns/" + i.name }

// within does something that opens sockets on the island. They stay there whoever uses them. Afterwards the thread is what it was:
// one that ended would take along what it has started, as the kernel counts it.
func (i *Island) within(do func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open(i.file())
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering %s: %w", i.name, err)
	}
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leaving %s: %w", i.name, back)) // and the thread is nobody else's
	}
	runtime.UnlockOSThread()
	return err
}

// Listen listens there, at a port of the system's choice.
func (i *Island) Listen() (l net.Listener, err error) {
	err = i.within(func() error {
		l, err = net.Listen("tcp", inland+":0")
		return err
	})
	return l, err
}

// Swallow has all that is sent there vanish from now on, or arrive again: the island has no way back to who sent it, and says
// nothing.
func (i *Island) Swallow(ctx context.Context, on bool) error {
	do := "del"
	if on {
		do = "add"
	}
	_, err := Run(ctx, nil, "ip", "-netns", i.name, "route", do, "blackhole", shore+"/32")
	return err
}

// Attempts is how many connections somebody has tried to open since it was last called, however often each was tried.
func (i *Island) Attempts() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := len(i.attempts)
	clear(i.attempts)
	return n
}

// watch sees what arrives by the cable.
func (i *Island) watch() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(binary.NativeEndian.Uint16([]byte{0x08, 0x00})))
	if err != nil {
		return fmt.Errorf("a socket that sees packets: %w", err)
	}
	i.eye = os.NewFile(uintptr(fd), "packets")
	go func() {
		packet := make([]byte, 64<<10)
		for {
			n, err := i.eye.Read(packet)
			if err != nil {
				return // closed
			}
			i.see(packet[:n])
		}
	}()
	return nil
}

// see counts a packet of IPv4 if it is the first of a TCP connection to the island.
func (i *Island) see(packet []byte) {
	const tcp, syn, ack = 6, 1 << 1, 1 << 4
	if len(packet) < 20 || packet[9] != tcp || net.IP(packet[16:20]).String() != inland {
		return
	}
	segment := packet[min(len(packet), int(packet[0]&15)*4):]
	if len(segment) < 14 || segment[13]&(syn|ack) != syn {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.attempts[binary.BigEndian.Uint16(segment)] = true
}

package policy

import (
	"runtime"
	"syscall"
	"unsafe"
)

// chunk is how many nodes are allocated at once: 256 KiB, so that a cache of few blobs costs little.
const chunk = 4096

// addChunk makes room for more nodes, outside of the heap. There they would be what mostly lives on it, so that the collector would
// let it grow to twice their size before each cycle; and what requests allocate would wander through all of that, and never be
// in the processor's cache. If the kernel gives no memory, the heap does.
//
// The memory is given back when nobody has the policy any more. The collector does not see that a node is in use, so each
// exported method that looks at nodes keeps its policy alive to its end.
func (p *Policy) addChunk() {
	const size = chunk * int(unsafe.Sizeof(node{}))
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		p.nodes = append(p.nodes, make([]node, chunk))
		return
	}
	p.nodes = append(p.nodes, unsafe.Slice((*node)(unsafe.Pointer(unsafe.SliceData(mem))), chunk))
	runtime.AddCleanup(p, func(mem []byte) { _ = syscall.Munmap(mem) }, mem)
}

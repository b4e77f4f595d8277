package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -cc clang -cflags "-mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu" -target bpfel sockets c/socket.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -cc clang -cflags "-mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu" -target bpfel packets c/packet.c

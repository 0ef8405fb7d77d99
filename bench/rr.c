// SPDX-License-Identifier: Apache-2.0
/*
 * Request/response latency over TCP: one byte there, one byte back.
 *
 *   rr serve PORT [CPU]               answer until killed; prints "ready" when listening
 *   rr rr    HOST PORT SECONDS [CPU]  one connection, many requests (TCP_RR)
 *   rr crr   HOST PORT SECONDS [CPU]  a connection per request, closed by reset so that no TIME_WAIT piles up (TCP_CRR)
 *
 * The client prints one JSON line: {"n":…,"rate":…,"p50_us":…,"p99_us":…,"cpu_us":…}; times are CLOCK_MONOTONIC,
 * cpu_us is this process's user + system time per operation.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tool.h"

static int listen_on(int port)
{
	struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int fd = socket(AF_INET6, SOCK_STREAM, 0), on = 1, off = 0;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 1024))
		die("listen");
	return fd;
}

static int serve(int port)
{
	struct epoll_event event = {.events = EPOLLIN}, ready[64];
	int listener = listen_on(port), poll = epoll_create1(0), one = 1;

	event.data.fd = listener;
	epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(poll, ready, 64, -1);

		for (int i = 0; i < n; i++) {
			int fd = ready[i].data.fd;
			char byte;

			if (fd == listener) {
				fd = accept(listener, NULL, NULL);
				if (fd < 0)
					continue;
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				event.data.fd = fd;
				epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
				continue;
			}
			if (read(fd, &byte, 1) != 1 || write(fd, &byte, 1) != 1)
				close(fd);
		}
	}
}

static int dial(const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)))
		die("connect");
	return fd;
}

static void exchange(int fd)
{
	char byte = 'x';

	if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
		die("exchange");
}

static int measure(int connect_each, const char *host, int port, double seconds)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct linger reset = {.l_onoff = 1, .l_linger = 0};
	uint32_t *samples = malloc(MAX_SAMPLES * sizeof(*samples));
	uint64_t start, end, at;
	struct rusage use;
	uint32_t n = 0;
	int fd = -1;

	if (!samples || inet_pton(AF_INET, host, &to.sin_addr) != 1)
		die("address");
	if (!connect_each)
		fd = dial(&to);
	start = now_ns();
	end = start + (uint64_t)(seconds * 1e9);
	while ((at = now_ns()) < end && n < MAX_SAMPLES) {
		if (connect_each)
			fd = dial(&to);
		exchange(fd);
		if (connect_each) {
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
			close(fd);
		}
		samples[n++] = (uint32_t)(now_ns() - at);
	}
	at = now_ns() - start;
	getrusage(RUSAGE_SELF, &use);
	qsort(samples, n, sizeof(*samples), compare);
	printf("{\"n\":%u,\"rate\":%.0f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"cpu_us\":%.2f}\n", n, n * 1e9 / at,
	       samples[n / 2] / 1e3, samples[(uint64_t)n * 99 / 100] / 1e3,
	       ((use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 + use.ru_utime.tv_usec + use.ru_stime.tv_usec) / n);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 3 && !strcmp(argv[1], "serve")) {
		if (argc > 3)
			pin(argv[3]);
		return serve(atoi(argv[2]));
	}
	if (argc >= 5 && (!strcmp(argv[1], "rr") || !strcmp(argv[1], "crr"))) {
		if (argc > 5)
			pin(argv[5]);
		return measure(argv[1][0] == 'c', argv[2], atoi(argv[3]), atof(argv[4]));
	}
	fputs("usage: rr serve PORT [CPU] | rr rr|crr HOST PORT SECONDS [CPU]\n", stderr);
	return 2;
}

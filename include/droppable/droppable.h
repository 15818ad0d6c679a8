/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DROPPABLE_H
#define DROPPABLE_DROPPABLE_H

/**
 * @file
 * libdroppable: memory that may be taken back under pressure and then reads as zeros.
 *
 * A *region* is memory owned by the droppabled service and mapped here. It is divided into *chunks* (64 KiB unless
 * asked otherwise). While a chunk is pinned it stays; an unpinned one may be dropped at any moment, and its next access
 * reads zeros. Each chunk has a generation that changes whenever the chunk is dropped: compare it to learn what was
 * lost.
 *
 * The usual cycle of a cache:
 *
 *     drp_pin(region, offset, length, &now);
 *     if (now != entry->generation) { fill(address + offset); entry->generation = now; }
 *     use(address + offset);
 *     drp_unpin(region, offset, length);
 *
 * Every function that can fail returns a negative errno value; drp_strerror() turns it into a sentence and
 * drp_detail() says what exactly was wrong in the last failing call of this thread. All functions may be called from any thread
 * at any time, but for drp_free() and drp_region_free(), which need the object to be no longer in use. None is a cancellation point.
 *
 * The library has a thread and descriptors of its own, close-on-exec, none of them 0, 1 or 2: some for the connection, three or four for each region. Leave them alone. A program
 * that closes what it does not know all the same, as some do that become daemons, or opens files with the same numbers, may expect this: its files are not
 * read, written, handed over or closed by the library (but an eventfd in the place of one of drp_get_lost_fd() may be written to, closed at the end, and
 * be another one in a child after fork(2); an inotify descriptor, and on old kernels a userfaultfd or pidfd, in the place of the like may be closed, too).
 * Nothing is opened by itself. The memory stays as it is, and is not dropped any more; pins and generations go on. But a shared region is dropped for the
 * others who have it: drp_pin() of it is -ENOTCONN until the service has it of this process again, and what was pinned before may be lost from 10 s later
 * on, as its generation tells; once the service was restarted, at any time, and generations tell nothing. Regions made with DRP_REGION_SIGNAL signal no
 * more, and drp_populate() of them fails. Calls that need the service return -ENOTCONN until the library has noticed, a moment; the next one connects
 * again, as in a child after fork(2). Then new regions can be made, and old ones whose descriptors are all left are the service's again within 100 ms.
 * drp_get_lost_fd() has to be asked for again.
 *
 * The semantics follow MAP_DROPPABLE of Linux 6.11 (mmap(2)); what is added follows vrange (LWN 602650), XNU's purgeable
 * memory and Chromium's discardable memory.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A connection to the service. */
struct drp;
/** A region of droppable memory. */
struct drp_region;
/** What this system can do, see drp_features_new(). */
struct drp_features;

/** Options of a region, for drp_region_options.required and .preferred. Unknown bits are an error (EOPNOTSUPP). */
/**
 * 2 MiB pages and 2 MiB chunks; but the kernel's own memory (DRP_BACKEND_NATIVE) goes page by page also then. Where it is preferred it gives way to a
 * smaller chunk_size.
 */
#define DRP_REGION_HUGE (UINT64_C(1) << 0)
/** Other processes may open it, see drp_region_open(). Without DRP_REGION_HUGE. */
#define DRP_REGION_SHARED (UINT64_C(1) << 2)
/**
 * An access to memory that was dropped, or was never populated, raises SIGBUS, and a system call that is given such memory fails with EFAULT. It
 * never reads zeros, also while the service is away. drp_populate() makes a range accessible; drp_locate() tells a signal handler what
 * was touched. The service does not see accesses. Needs UFFD_FEATURE_SIGBUS (Linux 4.14), no privileges; not together with DRP_REGION_HUGE.
 * This holds for the region where it was mapped, in this process. Moved by mremap(2), mapped a second time (drp_region_get_object()) and in
 * children of fork(2) it reads zeros, and one with whom the memory is shared so populates it for all. Of a shared region (DRP_REGION_SHARED) it
 * holds in each process that opens it: what any of them populates all can access, and what is dropped signals in all.
 */
#define DRP_REGION_SIGNAL (UINT64_C(1) << 1)
/**
 * A child after fork(2) has the same memory, not zeros: it reads and writes what the parent does, for as long as either lives. Only what the
 * parent has pinned is there for sure, and only while the parent lives: drp_* calls about the region fail in the child (ENOTCONN). The service
 * does not see the child's accesses; after the parent's end, however it ends, it drops nothing of the region any more: that is ordinary memory
 * then, which lives as long as the child, counts for no budget, and may be swapped before Linux 6.4.
 * With DRP_REGION_SHARED besides the child can join, as long as somebody has the region: drp_region_open_handle() with a handle that its parent had
 * before fork(2), or by name. That is a mapping of its own, of the same memory at another address, in which it pins, and which outlives the parent as
 * any shared region does.
 */
#define DRP_REGION_FORK_SHARED (UINT64_C(1) << 3)
/** In a child after fork(2) the addresses are not accessible (SIGSEGV), and nothing else takes their place. At most one of these two. */
#define DRP_REGION_FORK_ABSENT (UINT64_C(1) << 4)
/**
 * Core dumps of this process have the region's contents; they have not otherwise. /proc/PID/coredump_filter must include shared anonymous
 * memory, as it does by default.
 */
#define DRP_REGION_DUMP (UINT64_C(1) << 5)
/** The kernel may merge equal pages (KSM). It merges no shared memory, and the service's is: never given, -EOPNOTSUPP if required. */
#define DRP_REGION_MERGEABLE (UINT64_C(1) << 6)
/**
 * Nothing of the region is ever written to swap, not even while the service is away. Given without being asked for wherever the system can; ask
 * for it to be sure, and where huge pages cannot have it (before Linux 6.4), to have it instead of these. A system that
 * hibernates writes all of its memory to disk all the same.
 *
 * With DRP_REGION_SHARED it is given to who asks for it, where the service has a tmpfs without swap (Linux 6.4), and has a price: such an object cannot be sealed,
 * so each process that has the region can make it shorter by a handle of it (ftruncate(2)), and then the others get SIGBUS beyond its end, in pinned
 * memory, too. A shared region that is made without cannot be cut short by anybody, and may be swapped. drp_region_info.granted tells who opens one which of the two it is.
 */
#define DRP_REGION_NO_SWAP (UINT64_C(1) << 7)
/**
 * The program neither pins anything of the region nor asks what was lost, so that the kernel's own memory is good enough: with
 * DRP_BACKEND_AUTO it is taken then, where there is any and where it gives all else that is asked for: a budget, where the service enforces it of
 * native memory. Reported for regions that have neither pins
 * nor generations; it is never an error to ask for it.
 */
#define DRP_REGION_NO_PINS (UINT64_C(1) << 8)

/**
 * How drp_region_options.budget, .share, .priority and .chunk_size are meant, each of which has to be set then (else EINVAL). Required: creation fails
 * (EOPNOTSUPP) unless exactly that holds of the new region, by whoever allows how much. Preferred: what holds is as near as can be, and
 * drp_region_info.granted has the bit if it is what was asked for. A field that is set without its bit is as a preferred one, and
 * granted tells nothing of it; only a budget then has to be kept, if it may be less: creation fails where nobody keeps budgets. With
 * DRP_BACKEND_AUTO and DRP_REGION_NO_PINS a bit, required or preferred, keeps the region from being native where native memory does not have the field
 * as it was asked for. What changes later, by whoever, does not change these bits: drp_region_get_limits() tells what holds. They are the maker's: who
 * opens a shared region has none of them.
 */
#define DRP_REGION_BUDGET (UINT64_C(1) << 9)
#define DRP_REGION_SHARE (UINT64_C(1) << 10)
#define DRP_REGION_PRIORITY (UINT64_C(1) << 11)
#define DRP_REGION_CHUNK_SIZE (UINT64_C(1) << 12)

/**
 * Who has the memory. It is decided when a region is made, and never changes: drp_region_get_backend() tells. $DROPPABLE_BACKEND (`auto`,
 * `daemon`, `native`, `none`) decides where the program leaves it open. `droppablectl probe` tells what each of them gives here, and why not.
 */
enum drp_backend {
    /** The service; for a region with DRP_REGION_NO_PINS the kernel, where it can. Never DRP_BACKEND_NONE. */
    DRP_BACKEND_AUTO = 0,
    /** The service's memory: all of this page. */
    DRP_BACKEND_DAEMON = 1,
    /**
     * The kernel's own (MAP_DROPPABLE, Linux 6.11), which it drops page by page whenever it likes. It keeps nothing for a pin and tells nothing
     * of what it drops, so drp_pin(), drp_lost() and their kin fail with -EOPNOTSUPP, and drp_generation() never says the same twice. The
     * least unit is a page, whatever chunk_size was asked for. Nothing of it is ever in swap or in a core dump. If there is a service when drp_new() is
     * called, and it can, it counts the region and drops from it besides: by priority and share, and down to budgets. Without one, budgets are
     * refused (-EOPNOTSUPP) unless they are preferred, and so are drp_region_set_priority() and its like; the priority and share that
     * a region is made with wait. A service that comes later is found when the next region is made, and hears of all three.
     */
    DRP_BACKEND_NATIVE = 2,
    /**
     * Plain memory of this process, which nobody ever drops but drp_drop(): for programs that want one code path where nothing is available.
     * Pins succeed, nothing is lost. Nobody goes by a budget, priority or share: each is refused (-EOPNOTSUPP) but where it is preferred, and a
     * priority or share that a region is made with, which mean nothing.
     */
    DRP_BACKEND_NONE = 3,
};

/** How much a region's contents are worth, beside others. */
enum drp_priority {
    DRP_PRIORITY_LOW = 1,    /**< dropped first */
    DRP_PRIORITY_NORMAL = 2, /**< the default */
    DRP_PRIORITY_HIGH = 3,   /**< dropped last */
};

/** What happens at the first access to dropped memory of this process. */
enum drp_interception {
    DRP_INTERCEPTION_NONE = 0, /**< the kernel fills with zeros; the service does not see the access */
    DRP_INTERCEPTION_FULL = 1, /**< the service handles the access (userfaultfd) and learns from it */
};

/** Where to find the service; pass NULL to drp_new() for the defaults. */
struct drp_config {
    size_t struct_size; /**< sizeof(struct drp_config) */
    const char *socket_path; /**< NULL: $DROPPABLE_SOCKET, then $XDG_RUNTIME_DIR/droppabled.sock, then /run/droppabled.sock */
    const char *name;        /**< name shown in `droppablectl list`; NULL: the program's */
    enum drp_backend backend; /**< DRP_BACKEND_AUTO: $DROPPABLE_BACKEND's */
};

/** What a region shall be; pass NULL to drp_region_new() for the defaults. */
struct drp_region_options {
    size_t struct_size; /**< sizeof(struct drp_region_options) */
    uint64_t required;  /**< DRP_REGION_* that must be given, else creation fails */
    uint64_t preferred; /**< DRP_REGION_* that are welcome; drp_region_info() tells what was given */
    size_t chunk_size; /**< bytes, a power of two from 4 KiB to 2 MiB, see DRP_REGION_CHUNK_SIZE as for the next three; 0: 64 KiB, or 2 MiB with huge pages: with DRP_REGION_HUGE, or, of a region
                            of 2 MiB or more for which no option is asked, where the system gives huge pages to everybody
                            (transparent_hugepage/enabled is `always`) */
    enum drp_priority priority; /**< 0: normal */
    uint64_t budget; /**< bytes that may be resident, see drp_region_set_budget(); at least 4096. 0: as configured */
    uint32_t share; /**< 1 to 10000, see drp_region_set_share(). 0: 100. More of any of these three than the service allows counts as what it
                         allows, unless it is required: drp_region_get_limits() tells */
    mode_t mode; /**< of a shared region with a name, who may open it by that: 0600 for this user, 0060 for this process's group, 0006 for all, in
                         any sum; 0: 0600. Whoever opens it may read and write */
    const char *name; /**< of a shared region: 1 to 63 printable ASCII characters, neither space nor '/'. NULL: it can be opened by its handle alone */
};

/** What a region is. */
struct drp_region_info {
    uint64_t id;       /**< the service's name for it, as in `droppablectl list` */
    void *address;     /**< where it is mapped */
    size_t size;       /**< bytes, as granted: the asked size rounded up to a chunk, or to 2 MiB with DRP_REGION_HUGE */
    size_t chunk_size; /**< bytes; of a native region those of a page */
    uint64_t granted; /**< DRP_REGION_* that hold, see drp_region_set_options(); budget, share and priority: drp_region_get_limits() */
    enum drp_interception interception;
    bool connected; /**< the service holds it now; otherwise it is plain memory until the service is back. A native region: the service knows
                        of it; one with DRP_BACKEND_NONE: never */
};

/**
 * What holds of a region's limits, whoever has set them: the program, the service's configuration, an administrator. Of a region that no service
 * has (DRP_BACKEND_NONE, and DRP_BACKEND_NATIVE without one) nobody keeps any: there is no budget, and share and priority are 0.
 */
struct drp_region_limits {
    size_t struct_size;         /**< sizeof(struct drp_region_limits), set by the caller */
    uint64_t budget;            /**< bytes that may be resident, see drp_region_set_budget(); UINT64_MAX: none */
    uint64_t resident;          /**< bytes that are; with DRP_BACKEND_NONE in memory or in swap */
    uint32_t share;             /**< see drp_region_set_share() */
    enum drp_priority priority; /**< see drp_region_set_priority(); of all regions of a process an administrator can set it */
};

/** Figures of this process, counted by the service since the connection was made. */
struct drp_stats {
    uint64_t resident_bytes;
    uint64_t dropped_bytes;
    uint64_t intercepted_faults;
    uint64_t refaults; /**< accesses to dropped chunks that the service saw: at most one in each 2 MiB between two drops */
    uint64_t reconnects; /**< counted by the library */
};

/** What this system can do, and why not. */
struct drp_probe {
    bool native;             /**< the kernel has MAP_DROPPABLE */
    int native_error;        /**< negative errno that tells why not */
    bool daemon;             /**< the service answers */
    int daemon_error;        /**< negative errno that tells why not */
    char daemon_socket[108]; /**< the path that was tried last */
    uint64_t daemon_regions; /**< DRP_REGION_* that the service gives here */
    enum drp_interception daemon_interception;
    int interception_error; /**< negative errno that tells why accesses cannot be intercepted */
    int signal_error;       /**< negative errno that tells why there is no DRP_REGION_SIGNAL */
};

/* ---- connection ---- */

/**
 * Connects to the service, which DRP_BACKEND_NATIVE can do without, and DRP_BACKEND_NONE does. What was named and cannot be had is an error, and nothing
 * else is taken instead.
 * @return 0; -ENOENT or -ECONNREFUSED: no service there; -EPROTO: not this service, or of another version; -EDQUOT: too many
 *         connections of this user; -EINVAL: @config or $DROPPABLE_BACKEND malformed; -EOPNOTSUPP: DRP_BACKEND_NATIVE, and the kernel has no
 *         MAP_DROPPABLE; -ENOMEM, -EMFILE.
 */
int drp_new(struct drp **ret, const struct drp_config *config);

/** Ends the connection and frees every region of it. NULL is fine. @return NULL */
struct drp *drp_free(struct drp *d);

/**
 * Figures of this process.
 * @return 0; -ENOTCONN: the service is away (ret->reconnects is valid all the same).
 */
int drp_get_stats(struct drp *d, struct drp_stats *ret);

/**
 * Sets the budget of this context: when more of all its regions is resident, the service drops down to it, the coldest first, whether
 * memory is short or not. Nothing is refused for a budget, and pinned chunks stay. What the service's configuration and its administrator set is for all
 * contexts of the process together. A new service hears of it, and so does that of a child after fork(2).
 * @param bytes at least 4096, and no more than the service's configuration and its administrator allow; UINT64_MAX: as these say
 * @return 0; -EPERM: more than allowed; -EINVAL: out of range; -ENOTCONN: the service is away; -ETIMEDOUT. The old one holds then.
 */
int drp_set_budget(struct drp *d, uint64_t bytes);

/** Finds out what this system can do. Makes a connection of its own for it. @return 0, or -EINVAL: @config malformed. */
int drp_get_probe(const struct drp_config *config, struct drp_probe *ret);

/**
 * Finds out what each backend gives on this system, as `droppablectl probe` shows it: for drp_features_get(). Makes a connection of its own, for as long
 * as it takes.
 * @return 0; -EINVAL: @config malformed; -ENOMEM
 */
int drp_features_new(struct drp_features **ret, const struct drp_config *config);

/** NULL is fine. @return NULL */
struct drp_features *drp_features_free(struct drp_features *f);

/**
 * Does a backend give a feature?
 * @param i number of the feature, from 0 on; a later version may have more, and another order
 * @param backend DRP_BACKEND_DAEMON, DRP_BACKEND_NATIVE or DRP_BACKEND_NONE
 * @param ret_name of the feature, as `droppablectl probe` has it
 * @param ret_reason why not; empty if it is given. Valid until drp_features_free()
 * @return 1: given; 0: not; -ERANGE: there are no more; -EINVAL: no such backend
 */
int drp_features_get(const struct drp_features *f, unsigned i, enum drp_backend backend, const char **ret_name,
                     const char **ret_reason);

/* ---- regions ---- */

/**
 * Creates a region, all zeros, nothing resident.
 * @param size bytes, at least 1, rounded up to a chunk
 * @return 0; -EDQUOT: over a quota; -EOPNOTSUPP: a required option cannot be had, or a budget be kept; -EINVAL: malformed options;
 *         -ENOTCONN: the service is away; -ENOMEM, -EMFILE, -ENFILE: also where DRP_REGION_SIGNAL is only preferred, and short for the moment;
 *         -ETIMEDOUT.
 */
int drp_region_new(struct drp_region **ret, struct drp *d, size_t size, const struct drp_region_options *options);

/**
 * Opens a shared region (DRP_REGION_SHARED) that another process made, by its name. All who have it see the same memory, the same drops and
 * the same generations. What one has pinned stays for all; its pins end with its process. It lives as long as somebody has it. In a child
 * after fork(2) it is as any region. Its budget, share and priority are its maker's; it counts to the user who made it, and to every cgroup
 * in which somebody has it; after a restart of the service it hears of them from whichever process of that user set them. What was lost, and what is
 * volatile, each process knows for itself: who opens it is told of all that was ever dropped, also of what another has made again since. The accesses are not intercepted; they signal, if it was made with DRP_REGION_SIGNAL. Whoever has it could drop it by hand, or write over it, or cut it short if it
 * was made with DRP_REGION_NO_SWAP: share it with programs that are trusted with its contents.
 * @param uid whose region it is; names of different users are different
 * @return 0; -ENOENT: no region of that name now; -EACCES: its mode does not allow it; -EINVAL: no name; -EDQUOT: over a quota; -EOPNOTSUPP: the
 *         service is too old, or the region has DRP_REGION_SIGNAL and the kernel gives this process no userfaultfd for it; -ENOTCONN, -ENOMEM,
 *         -ETIMEDOUT
 */
int drp_region_open(struct drp_region **ret, struct drp *d, const char *name, uid_t uid);

/**
 * The same by a handle, which stays the caller's: who holds it may have the region, whatever its mode.
 * @return also -EBADF: no handle of a region of this service
 */
int drp_region_open_handle(struct drp_region **ret, struct drp *d, int handle);

/**
 * A handle of a shared region, to be passed to another process (SCM_RIGHTS). It does not keep the region.
 * @return a descriptor of the caller's, close-on-exec; -EINVAL: the region is not shared; -ENOTCONN: a region from before fork(2); -EBADF: the
 *         program has closed the library's; -EMFILE
 */
int drp_region_get_handle(const struct drp_region *r);

/** Frees a region with all its memory and unmaps it; of a shared one, only the last who has it frees the memory. NULL is fine. @return NULL */
struct drp_region *drp_region_free(struct drp_region *r);

/** Start address of the region; it never changes. */
void *drp_region_address(const struct drp_region *r);
/** Size in bytes. */
size_t drp_region_size(const struct drp_region *r);
/** Who has its memory; never DRP_BACKEND_AUTO. */
enum drp_backend drp_region_get_backend(const struct drp_region *r);
/** Everything about a region. */
void drp_region_get_info(const struct drp_region *r, struct drp_region_info *ret);

/**
 * The shared-memory object that holds a region, for another process to map: by SCM_RIGHTS, or by /proc/PID/fd for programs that open
 * files, as QEMU does for a guest's memory. Such a process reads and writes the region's memory, sees drops as zeros, and is not
 * seen by the service: its accesses are not intercepted, and keep nothing. Pins are this process's.
 * @param ret_offset the region's first byte in the object
 * @return a descriptor of the caller's, close-on-exec; -ENOTCONN: a region from before fork(2); -EOPNOTSUPP: not the service's memory; -EBADF: the
 *         program has closed the library's; -EMFILE
 */
int drp_region_get_object(const struct drp_region *r, uint64_t *ret_offset);

/**
 * The same as drp_set_budget() for one region.
 * @return also -ENOTCONN: the service does not hold this region; -EOPNOTSUPP: its backend keeps no budgets
 */
int drp_region_set_budget(struct drp_region *r, uint64_t bytes);

/**
 * Sets how much of a region stays, beside others of the same priority that were used as long ago: twice the share, half the loss. A new
 * service hears of it.
 * @param share 1 to 10000; a region has 100 unless told otherwise. Who is no administrator of the service may only lower it below that, or
 *        below what an administrator has set.
 * @return 0; -EPERM; -EINVAL: out of range; -ENOTCONN: the service is away, or does not hold this region; -ETIMEDOUT; -EOPNOTSUPP: its backend
 *         has none
 */
int drp_region_set_share(struct drp_region *r, unsigned share);

/** Sets the priority of a region; what is said of drp_region_set_share() holds here, too. */
int drp_region_set_priority(struct drp_region *r, enum drp_priority priority);

/**
 * Tells what limits hold of a region now: asks the service that has it.
 * @param ret its struct_size is set by the caller
 * @return 0; -EINVAL: struct_size is not; -ENOTCONN: the service is away, or does not hold this region; -ETIMEDOUT
 */
int drp_region_get_limits(struct drp_region *r, struct drp_region_limits *ret);

/**
 * Changes options of a region, from now on; drp_region_info() tells which hold. DRP_REGION_FORK_SHARED, DRP_REGION_FORK_ABSENT: for children
 * made later. DRP_REGION_DUMP. DRP_REGION_HUGE: whether the kernel gives huge pages for what is touched later, of a region that was made
 * with them; its chunks stay as they are. All other options are for a region's whole life. A restart of the service changes none. Priority,
 * share and budget have functions of their own.
 * @param mask DRP_REGION_*: the options to change
 * @param values those of them that shall hold
 * @return 0; -EOPNOTSUPP: one cannot be changed, or not be given to this region (drp_detail() names it); -EINVAL: values has bits that mask has not,
 *         or both fork options would hold; -ENOTCONN: a region from before fork(2); -ENOMEM. All is as before then.
 */
int drp_region_set_options(struct drp_region *r, uint64_t mask, uint64_t values);

/* ---- pins and generations ---- */

/**
 * Pins every chunk that the range touches: from the return of this call on, they are not dropped until drp_unpin(). Pins count.
 * No system call unless one of the chunks is being dropped right now; then waits until that is finished.
 *
 * @param ret_generation the range's generation (see drp_generation()), which does not change while the range is pinned;
 *        NULL if not wanted
 * @return 0; -ERANGE: not inside the region, or empty; -EDQUOT: the quota of pinned memory is used up; -EOVERFLOW: a chunk is pinned
 *         65,536 times already; -EOPNOTSUPP: the region is native (DRP_BACKEND_NATIVE), as from all calls that are about pins or losses; -ENOTCONN: a region
 *         of the process before fork(2) that is shared with this one, or absent; or a shared region, and the program has closed the library's descriptors
 */
int drp_pin(struct drp_region *r, size_t offset, size_t length, uint64_t *ret_generation);

/** Takes back one drp_pin() of the same range. @return 0; -ERANGE; -EINVAL: a chunk was not pinned. */
int drp_unpin(struct drp_region *r, size_t offset, size_t length);

/**
 * Says that a range was just used: of each chunk that it touches, as drp_pin() does. No system call, no wait; a few nanoseconds a chunk.
 *
 * The service drops what was used longest ago. It sees pins, touches and the accesses that bring dropped or fresh memory in; reads and
 * writes of what is resident it does not see. Memory that is neither pinned nor touched is therefore ordered by when it was last brought
 * in, and what turns out to be needed soon after it was dropped is kept longer the next time (refault protection). A
 * program that reads without pins (drp_read_begin()) should touch what it hits.
 * @return 0; -ERANGE: not inside the region, or empty
 */
int drp_touch(struct drp_region *r, size_t offset, size_t length);

/**
 * The generation of a range: the sum of its chunks' generations. Of one range, two equal generations mean that nothing of
 * it was dropped in between; unequal ones that something was, or just was about to be. A chunk that is being dropped right now has an odd generation, which is taken back if it
 * turns out to be pinned: note what drp_pin() returned, which is settled, or what drp_read_begin() did.
 * @return the generation; 0 for a range outside the region. Of a native region never the same twice: whether something was dropped is not known
 */
uint64_t drp_generation(const struct drp_region *r, size_t offset, size_t length);

/**
 * Says what was lost: the first lost run of chunks in the range.
 * @param generations one 32-bit generation per chunk as drp_copy_generations() gave them, the first for the chunk of @offset
 * @param ret_offset,ret_length the run, in bytes of the region; untouched if nothing was lost
 * @return 1: something was lost; 0: nothing; -ERANGE
 */
int drp_lost(const struct drp_region *r, size_t offset, size_t length, const uint32_t *generations, size_t *ret_offset,
             size_t *ret_length);

/** Copies the generation of each chunk that the range touches. @return number of chunks, or -ERANGE. */
ssize_t drp_copy_generations(const struct drp_region *r, size_t offset, size_t length, uint32_t *ret);

/**
 * Optimistic read without a pin (a sequence lock, see Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?").
 *
 *     if (drp_read_begin(r, off, len, &g) == 0 && g == entry->generation) {
 *         copy(...);
 *         if (!drp_read_retry(r, off, len, g)) { drp_touch(r, off, len); return HIT; }
 *     }
 *
 * @return 0; -EAGAIN: being dropped right now; -ERANGE
 */
int drp_read_begin(const struct drp_region *r, size_t offset, size_t length, uint64_t *ret_generation);
/** @return true: something of the range was dropped since drp_read_begin(), what was read may be zeros. */
bool drp_read_retry(const struct drp_region *r, size_t offset, size_t length, uint64_t generation);

/* ---- what was lost ---- */

/**
 * An eventfd that becomes readable when something of any region of this process was dropped. Many drops may be one event; an event may also come
 * without one, after the service was restarted. Read it first, then ask drp_region_take_lost() of each region until it says 0. After
 * fork(2) it stays silent in the child, until that asks for it itself.
 * @return the descriptor, always the same, of the library: do not close it; -EOPNOTSUPP: the service is too old; -EMFILE, -ETIMEDOUT. While the
 *         service is away it is given all the same.
 */
int drp_get_lost_fd(struct drp *d);
/** The same for one region. Readable at once if something of it was dropped before. */
int drp_region_get_lost_fd(struct drp_region *r);

/**
 * Says what was lost since this call said it last: the next run of chunks, in the order of their places. No event is needed to ask. What is made
 * again before it is told is told all the same. Threads that ask at the same time share the answers.
 * @param ret_offset,ret_length the run, in bytes of the region; untouched if there is none
 * @return 1: this run was lost; 0: no more; -ENOMEM
 */
int drp_region_take_lost(struct drp_region *r, size_t *ret_offset, size_t *ret_length);

/* ---- volatile and non-volatile ---- */

/**
 * For programs that use ranges for longer than a moment: makes a range volatile, that is, it may be dropped from now on. All of a region is
 * volatile when it is made. Asking twice is the same as asking once. Independent of drp_pin(): what is pinned besides stays. See vrange
 * (LWN 602650).
 * @param offset,length only chunks that lie wholly inside become volatile
 * @return 0; -ERANGE: not inside the region, or empty; -ENOMEM
 */
int drp_set_volatile(struct drp_region *r, size_t offset, size_t length);

/**
 * Makes every chunk that the range touches non-volatile: it stays from now on, and counts as pinned. No system call after a region's
 * first.
 * @param ret_lost whether something of the range was dropped since it became volatile: it has to be made again, what was lost reads zeros. Memory
 *        that never was non-volatile is lost if it was ever dropped. NULL if not wanted
 * @return 0; -ERANGE; -ENOMEM; -EDQUOT: the quota of pinned memory is used up: a part at the start of the range is non-volatile then, and
 *         *ret_lost speaks of that; asked again, it is not lost
 */
int drp_set_nonvolatile(struct drp_region *r, size_t offset, size_t length, bool *ret_lost);

/* ---- by hand ---- */

/**
 * Drops the chunks that lie inside the range; pinned ones stay. Returns when the pages are free.
 * @param ret_freed,ret_pinned bytes, NULL if not wanted
 * @return 0; -ERANGE; -ENOTCONN: the service is away; -ETIMEDOUT
 */
int drp_drop(struct drp_region *r, size_t offset, size_t length, uint64_t *ret_freed, uint64_t *ret_pinned);

/**
 * Makes the range resident, zeros where nothing was, one batch after the other, each behind the service's headroom check.
 *
 * Of a region with DRP_REGION_SIGNAL it makes the pages that the range touches accessible: those that are not there become zeros, the others
 * stay, and other pages of the same chunk go on raising the signal. It is async-signal-safe then, needs no service, does not set drp_detail(), and
 * waits only while the range is being dropped right now. What is not pinned may be dropped again at once: pin, populate, fill, unpin. Between
 * populating and filling other threads read zeros. The memory is not checked for: like any that the kernel fills it can be refused or set
 * off an OOM kill where it is more than there is room for.
 * @return 0; -ERANGE; -ENOMEM: no memory for it; -ETIMEDOUT. While the service is away, the kernel populates. With DRP_REGION_SIGNAL also
 *         -ENOENT: the program has unmapped or moved it
 */
int drp_populate(struct drp_region *r, size_t offset, size_t length);

/**
 * Which region of this process has that address, of any connection. For handlers of SIGBUS, which have it in siginfo_t.si_addr:
 * async-signal-safe, no lock, no system call, a few nanoseconds for each region that there is.
 * @param ret_region,ret_offset NULL if not wanted; untouched if there is none. The region is valid as long as nobody frees it
 * @return 0; -ERANGE: no region's
 */
int drp_locate(const void *address, struct drp_region **ret_region, size_t *ret_offset);

/* ---- errors ---- */

/** A sentence for a negative errno value as returned by this library. Static, never NULL. */
const char *drp_strerror(int error);
/** What exactly was wrong in the last failing call of this thread: names the option, the limit, the way out. Never NULL. */
const char *drp_detail(void);

#ifdef __cplusplus
}
#endif

#endif

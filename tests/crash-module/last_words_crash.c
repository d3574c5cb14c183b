// SPDX-License-Identifier: GPL-2.0
/*
 * Crashes the machine it is loaded on, for `cargo xtask vm --last-words`.
 *
 * Only for test VMs: a write of a name to
 * /sys/module/last_words_crash/parameters/crash does what the name says, on the
 * CPU of the writer. It is built against the headers of Debian's kernels 6.1 to 7.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/panic.h>
#include <linux/preempt.h>
#include <linux/smp.h>
#include <linux/string.h>

static void in_ipi(void *unused)
{
	panic("last_words_crash: in an IPI");
}

/* An interrupt of another CPU, which may be in the middle of anything. */
static noinline void ipi(void)
{
	smp_call_function_any(cpumask_of(raw_smp_processor_id() ? 0 : 1), in_ipi, NULL, 0);
	/* The others stop; this one must not go on as if nothing had happened. */
	msleep(10 * 1000);
}

static noinline void oops(void)
{
	WRITE_ONCE(*(int *)NULL, 1);
}

/* The watchdog's timer interrupt finds that this CPU does not schedule. */
static noinline void soft_lockup(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
}

static int crash(const char *name, const struct kernel_param *unused)
{
	if (sysfs_streq(name, "oops"))
		oops();
	else if (sysfs_streq(name, "ipi"))
		ipi();
	else if (sysfs_streq(name, "soft-lockup"))
		soft_lockup();
	else
		return -EINVAL;
	return 0;
}

static const struct kernel_param_ops crash_ops = { .set = crash };
module_param_cb(crash, &crash_ops, NULL, 0200);
MODULE_PARM_DESC(crash, "oops, ipi or soft-lockup");
MODULE_DESCRIPTION("Crashes a test VM");
MODULE_LICENSE("GPL");

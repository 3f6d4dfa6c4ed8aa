"""The published formulas, position by position and class by class, in 60 digits: slow, plain, and independent of torch.

Written from the papers. Each takes the logits of student and teacher as lists of rows, one row of C numbers per
position, and returns the loss, the mean over rows. None guards against anything: 60 digits and an unbounded exponent
are guard enough.
"""
from mpmath import mp, mpf

mp.dps = 60


def softmax(row, temperature=1):
    powers = [mp.exp(x / mpf(temperature)) for x in row]
    return [power / sum(powers) for power in powers]


def kl(p, q):
    return sum(a * (mp.log(a) - mp.log(b)) for a, b in zip(p, q, strict=True))


def mean(values):
    return sum(values) / len(values)


def z_scores(row, correction=0):
    """The published deviations divide the squares by C - 1 over all classes, and by their number over a group."""
    centre = mean(row)
    deviation = mp.sqrt(sum((x - centre)**2 for x in row) / (len(row) - correction))
    return [(x - centre) / deviation if deviation else mpf(0) for x in row]


def standardized(row, groups, mode):
    """Z-scores over all classes, over each group, or over the rest, the group with the highest number."""
    row = list(row)
    sets = dict(
        whole=[list(range(len(row)))],
        group=[[i for i, g in enumerate(groups) if g == h] for h in range(max(groups) + 1)],
        rest=[[i for i, g in enumerate(groups) if g == max(groups)]])[mode]
    for members in sets:
        scores = z_scores([row[i] for i in members], correction=int(mode == 'whole')) if members else []
        for i, score in zip(members, scores, strict=True):
            row[i] = score
    return row


def grouped(z, v, groups, w_between, w_within, temperature, divergence='forward', standardize=None, by_mass=()):
    """One position: T^2 [w_b KL(b^v || b^z) + sum_g w_g KL(p^v_g || p^z_g)].

    The groups in ``by_mass`` have w_g times their b^v. Standardised as a whole both terms see the z-scores; group by
    group only the terms within.
    """
    inner_z, inner_v = z, v
    if standardize:
        inner_z, inner_v = standardized(z, groups, standardize), standardized(v, groups, standardize)
    if standardize == 'whole':
        z, v = inner_z, inner_v
    q, p = softmax(z, temperature), softmax(v, temperature)
    members = [[i for i, g in enumerate(groups) if g == h] for h in range(max(groups) + 1)]
    w_within = [w * sum(p[i] for i in m) if g in by_mass else w
                for g, (w, m) in enumerate(zip(w_within, members, strict=True))]
    members = [(w, m) for w, m in zip(w_within, members, strict=True) if m]
    total = w_between * kl([sum(p[i] for i in m) for _, m in members], [sum(q[i] for i in m) for _, m in members])
    for w, m in members:
        inside_q, inside_p = (softmax([row[i] for i in m], temperature) for row in (inner_z, inner_v))
        forward, reverse = kl(inside_p, inside_q), kl(inside_q, inside_p)
        total += w * dict(forward=forward, reverse=reverse, both=(forward + reverse) / 2)[divergence]
    return mpf(temperature)**2 * total


def kd(z, v, target, temperature=4., standardize=None):
    def one(a, b):
        if standardize:
            a, b = z_scores(a, 1), z_scores(b, 1)
        return mpf(temperature)**2 * kl(softmax(b, temperature), softmax(a, temperature))

    return mean([one(a, b) for a, b in zip(z, v, strict=True)])


def tckd_and_nckd(z, v, t, temperature):
    """The two parts of DKD at one position with target t, with T^2."""
    q, p = softmax(z, temperature), softmax(v, temperature)
    others = [i for i in range(len(z)) if i != t]
    tckd = kl([p[t], sum(p[i] for i in others)], [q[t], sum(q[i] for i in others)])
    nckd = kl(softmax([v[i] for i in others], temperature), softmax([z[i] for i in others], temperature))
    return mpf(temperature)**2 * tckd, mpf(temperature)**2 * nckd


def dkd(z, v, target, alpha=1., beta=8., temperature=4., standardize=None):
    def one(a, b, t):
        if standardize:
            return grouped(a, b, [int(i != t) for i in range(len(a))], alpha, [0, beta], temperature, 'forward',
                           standardize)
        tckd, nckd = tckd_and_nckd(a, b, t, temperature)
        return alpha * tckd + beta * nckd

    return mean([one(a, b, t) for a, b, t in zip(z, v, target, strict=True)])


def ranks(row, strategy='best'):
    """Rank of each class, 0 for the highest (or lowest) logit."""
    order = sorted(range(len(row)), key=lambda i: row[i], reverse=strategy == 'best')
    return [order.index(i) for i in range(len(row))]


def k_by_ratio(row, ratio, k_max, temperature):
    """The last rank whose probability is at least ``ratio`` times the mean of it and the smaller ones, up to k_max."""
    p = sorted(softmax(row, temperature), reverse=True)
    leading = [j for j in range(1, len(p) + 1) if p[j - 1] >= ratio * mean(p[j - 1:])]
    return min(max(leading, default=1), k_max, len(p) - 1)


def gdkd(z, v, target, k=5, ratio=None, k_max=None, w0=1., w1=2., w2=8., strategy='best', divergence='forward',
         temperature=4., standardize=None, by_mass=None):
    def one(a, b, t):
        if ratio is not None:
            n = k_by_ratio(b, ratio, k_max, temperature)
        else:
            n = k[t] if isinstance(k, (list, tuple)) else k
        groups = [int(rank >= n) for rank in ranks(b, strategy)]
        masses = {None: (), 'top': (0, ), 'rest': (1, ), 'both': (0, 1)}[by_mass]
        return grouped(a, b, groups, w0, [w1, w2], temperature, divergence, standardize, masses)

    return mean([one(*rows) for rows in zip(z, v, target, strict=True)])


def gdkd3(z, v, target, k=4, w0=1., w1=2., w2=8., divergence='forward', temperature=4., standardize=None):
    def one(a, b):
        groups = [0 if rank == 0 else 1 if rank < k else 2 for rank in ranks(b)]
        return grouped(a, b, groups, w0, [0, w1, w2], temperature, divergence, standardize)

    return mean([one(a, b) for a, b in zip(z, v, strict=True)])


def derivative(function, point, step):
    """Gradient of a function of one row by central differences."""
    result = []
    for i in range(len(point)):
        up, down = list(point), list(point)
        up[i], down[i] = point[i] + step, point[i] - step
        result.append((function(up) - function(down)) / (2 * step))
    return result


def coupling_m(z, v, t, temperature):
    """Mean squared difference of the gradients of TCKD and NCKD at one position; both by differences."""
    step = mpf(10)**-15
    first = derivative(lambda row: tckd_and_nckd(row, v, t, temperature)[0], z, step)
    second = derivative(lambda row: tckd_and_nckd(row, v, t, temperature)[1], z, step)
    return mean([(a - b)**2 for a, b in zip(first, second, strict=True)])


def dgkd(z, v, target, alpha=1., beta=1., epsilon=6., temperature=4., coupling='relative', softening=0., constant=None):
    """``constant`` is the detached mean of m: pass it when z is moved for a derivative."""
    m = mean([coupling_m(a, b, t, temperature) for a, b, t in zip(z, v, target, strict=True)])
    if coupling == 'absolute':
        term = m * len(z[0])
    else:  # the published quotient, of gradients of the batch mean: each is divided by the number of rows
        square, held = (value / len(z)**2 for value in (m, m if constant is None else constant))
        term = square / (held + mpf(softening))
    return dkd(z, v, target, alpha, beta, temperature) - epsilon * term


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def bernoulli_kl(x, y):
    """KL(Bern(sigmoid(x)) || Bern(sigmoid(y))); 1 - sigmoid(x) is written sigmoid(-x)."""
    return kl([sigmoid(x), sigmoid(-x)], [sigmoid(y), sigmoid(-y)])


def binary_kl(z, v, target, temperature=2.):
    T = mpf(temperature)
    return mean([T**2 * sum(bernoulli_kl(y / T, x / T) for x, y in zip(a, b, strict=True))
                 for a, b in zip(z, v, strict=True)])


def binary_kl_norm(z, v, target, temperature=2.):
    T = mpf(temperature)
    return mean([T**2 * sum(bernoulli_kl(mpf(0), (x - y) / T) for x, y in zip(a, b, strict=True))
                 for a, b in zip(z, v, strict=True)])


def logit_mse(z, v, target):
    return mean([sum((x - y)**2 for x, y in zip(a, b, strict=True)) for a, b in zip(z, v, strict=True)])


def pearson(a, b):
    a, b = [x - mean(a) for x in a], [x - mean(b) for x in b]
    return sum(x * y for x, y in zip(a, b, strict=True)) / mp.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def dist(z, v, target, beta=1., gamma=1., temperature=1.):
    q, p = [softmax(row, temperature) for row in z], [softmax(row, temperature) for row in v]
    inter = mean([1 - pearson(a, b) for a, b in zip(q, p, strict=True)])
    intra = mean([1 - pearson(a, b) for a, b in zip(zip(*q, strict=True), zip(*p, strict=True), strict=True)])
    return mpf(temperature)**2 * (beta * inter + gamma * intra)


def cwd(z, v, target, temperature=4.):
    """The rows are the positions of one image."""
    channels = zip(zip(*z, strict=True), zip(*v, strict=True), strict=True)
    return mpf(temperature)**2 * mean([kl(softmax(b, temperature), softmax(a, temperature)) for a, b in channels])


def value_and_gradient(oracle, z, v, target, by_row=None, **settings):
    """The loss and its gradient by every logit of the student, from tensors.

    Where the loss is a mean of terms of one row each, a row is moved without the others, which is quicker.
    """
    z, v = ([[mpf(x) for x in row] for row in logits.double().tolist()] for logits in (z, v))
    target = [None] * len(z) if target is None else target.tolist()
    value = oracle(z, v, target, **settings)
    if oracle is dgkd:
        pairs = zip(z, v, target, strict=True)
        settings = dict(
            settings, constant=mean([coupling_m(a, b, t, settings.get('temperature', 4.)) for a, b, t in pairs]))
    if by_row is None:
        by_row = oracle not in (dist, cwd) and not settings.get('softening')
    step = mpf(10)**-20
    gradient = []
    for n, row in enumerate(z):
        def moved(other, n=n):
            if by_row:
                return oracle([other], [v[n]], [target[n]], **settings) / len(z)
            return oracle([*z[:n], other, *z[n + 1:]], v, target, **settings)

        gradient.append([float(x) for x in derivative(moved, row, step)])
    return float(value), gradient

"""What each metric of training says, in a sentence for whoever reads its chart."""

MEANINGS = {
    "loss": "The objective that a step makes smaller; of RL it says little by itself.",
    "lr": "The learning rate of the step's last update.",
    "tokens": "Tokens trained on.",
    "reward": "Mean reward of the answers sampled in training. It is to rise; what ships, gates decide.",
    "reward/PART": "One part of the reward, as the verifier names it.",
    "groups_with_variance": "Share of tasks whose answers earn different rewards. Others teach nothing.",
    "unscored": "Share of answers that could not be scored. It is to be near 0.",
    "truncated": "Share of answers cut off by the token limit. Where it rises, answers get too long.",
    "completion_tokens": "Tokens that the model wrote in an episode, on average.",
    "turns": "Turns that the model took in an episode, on average.",
    "clip_share": "Share of tokens whose gradient the clip sets to 0: updates that wanted to go too far.",
    "ratio": "How much more probable the step made the tokens it was trained on; near 1.",
    "correction": "Mean weight that corrects for the sampler; near 1.",
    "correction_dropped": "Share of tokens that the correction leaves out.",
    "sampler_kl": "How far the sampler's probabilities are from the trainer's. Above 0.01 something is wrong.",
    "probe_mean": "Mean difference of vLLM's log-probs from the trainer's.",
    "probe_max": "Largest difference of vLLM's log-probs from the trainer's.",
    "sampled_entropy": "How unsure the model is of the tokens that it writes. Near 0 it has stopped exploring.",
    "entropy": "How unsure the model is of each token. Near 0 it has stopped exploring.",
    "kl": "How far the model has moved from where it started.",
    "grad_norm": "Size of the gradient before clipping. Jumps are steps to look at.",
    "critic/loss": "The critic's objective.",
    "critic/squared_error": "How far the critic's guesses were from what answers earned.",
    "critic/clip_share": "Share of the critic's updates that its clip sets to 0.",
    "critic/grad_norm": "Size of the critic's gradient before clipping.",
    "critic/lr": "The critic's learning rate.",
    "staleness": "How many steps older than the trainer the sampling weights were.",
    "seconds": "Wall-clock time of the step.",
    "seconds_sampling": "Time spent sampling answers.",
    "seconds_training": "Time spent on the rest of the step.",
    "seconds_logprobs": "Time spent on log-probs.",
    "seconds_backward": "Time spent on gradients.",
    "seconds_optimizer": "Time spent on the optimizer.",
    "tokens_per_second_sampling": "Tokens written a second.",
    "tokens_per_second_training": "Tokens trained on a second.",
    "memory_mib": "The most memory so far.",
}


def meaning(name: str) -> str:
    """What a metric says; nothing of one that nobody has described."""
    return MEANINGS.get("reward/PART" if name.startswith("reward/") else name, "")

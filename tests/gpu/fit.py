"""Fits the plan's constants to the calibration table and shows how far off each row is: `make fit`."""

from slimtune.plan import calibration, pacing


def main() -> None:
    rows = calibration.read_table()
    calibration.write_constants(rows)
    for row in rows:
        at = row.setting
        print(
            f"{row.use:4} {row.error:+7.1%} {row.predicted_gib:6.2f} for {row.reserved_gib:6.2f} GiB  {row.spec.key} "
            f"{row.weights} {at.precision} r {at.lora_r} {at.micro_batch} x {at.row_tokens}"
            f"{' checkpointed' * at.checkpointing}{' tiled' * at.tiled_mlp}{' framed' * at.framed}"
        )
    timed = pacing.read_timed()
    pacing.write_paces(timed)
    for row in timed:
        at, predicted = row.setting, row.predicted_s()
        print(
            f"{row.use:4} {predicted / row.step_s - 1:+7.1%} {predicted:6.4f} for {row.step_s:6.4f} s  {row.spec.key} "
            f"{at.quantisation} {at.micro_batch} x {at.row_tokens}{' checkpointed' * at.checkpointing}"
            f"{' framed' * at.framed}"
        )


if __name__ == "__main__":
    main()

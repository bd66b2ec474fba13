"""Answers for analysts: the documented views of schema `analytics`, and questions asked of them."""

from service.analytics.drilling import behind
from service.analytics.filters import COLUMNS, UNKNOWN, TransferFilter
from service.analytics.questions import (
    Bin,
    ChainLength,
    Count,
    DataQuality,
    Freshness,
    HourOfWeek,
    Pair,
    Point,
    Rate,
    TalkTime,
    chains,
    count_transfers,
    data_quality,
    freshness,
    hour_of_week,
    pairs,
    reasons_known,
    talk_before_transfer,
    transfer_rate,
    transfers_over_time,
)
from service.analytics.statement import Statement
from service.analytics.statements import BUCKETS, Bucket

__all__ = [
    "BUCKETS",
    "COLUMNS",
    "UNKNOWN",
    "Bin",
    "Bucket",
    "ChainLength",
    "Count",
    "DataQuality",
    "Freshness",
    "HourOfWeek",
    "Pair",
    "Point",
    "Rate",
    "Statement",
    "TalkTime",
    "TransferFilter",
    "behind",
    "chains",
    "count_transfers",
    "data_quality",
    "freshness",
    "hour_of_week",
    "pairs",
    "reasons_known",
    "talk_before_transfer",
    "transfer_rate",
    "transfers_over_time",
]
